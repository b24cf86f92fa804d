# docker build -t metatrain .                      on CPUs
# docker build -t metatrain --build-arg TORCH_INDEX=ADDRESS .   another build of torch: the address of an index that has it (CUDA)
# docker run -v "$PWD:/work" metatrain train +experiment=sentiment_fewshot
ARG PYTHON=3.11
FROM python:${PYTHON}-slim
ARG TORCH_INDEX=
WORKDIR /metatrain
COPY pyproject.toml constraints.txt README.md LICENSE CHANGELOG.md ./
COPY metatrain metatrain
COPY conf conf
RUN pip install --no-cache-dir ${TORCH_INDEX:+--index-url "$TORCH_INDEX"} "$(grep '^torch==' constraints.txt)" \
 && pip install --no-cache-dir -c constraints.txt ".[offline,sweep,peft,text]" \
 && useradd --create-home metatrain
USER metatrain
WORKDIR /work
ENTRYPOINT ["metatrain"]
CMD ["--help"]
