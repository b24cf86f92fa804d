# docker build -t metatrain .                                   with torch as the package index has it (PyPI's is for CUDA)
# docker build -t metatrain --build-arg TORCH_INDEX=ADDRESS .   with another build, for CPUs say: the address of an index that has it
# docker run --user "$(id -u):$(id -g)" -v "$PWD:/work" metatrain train +experiment=sentiment_fewshot
ARG PYTHON=3.11
FROM python:${PYTHON}-slim
ARG TORCH_INDEX=
WORKDIR /metatrain
COPY pyproject.toml constraints.txt README.md LICENSE CHANGELOG.md ./
COPY metatrain metatrain
COPY conf conf
RUN pip install --no-cache-dir ${TORCH_INDEX:+--index-url "$TORCH_INDEX"} "$(grep '^torch==' constraints.txt)" \
 && pip install --no-cache-dir -c constraints.txt ".[offline,sweep,peft,text]" \
 && useradd --create-home metatrain && chmod 777 /home/metatrain
USER metatrain
# Also of whom `docker run --user` names: caches are below it.
ENV HOME=/home/metatrain
WORKDIR /work
ENTRYPOINT ["metatrain"]
CMD ["--help"]
