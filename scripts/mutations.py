"""Mutation testing: break the methods in one place at a time and check that a test detects it: python scripts/mutations.py

Works on a copy of the last commit; about 20 minutes on one busy core. Arguments: only the mutations
whose description contains one of them. Exits with 1 if a mutation goes unnoticed.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[1]


class Mutation(NamedTuple):
    """A piece of a file below metatrain/, what it is replaced by, and the tests below tests/ that must fail then."""

    what: str
    file: str
    piece: str
    replacement: str
    tests: str
    chosen: str


MUTATIONS = [
    Mutation(
        "SGD's rate",
        "gradient/inner_rules.py",
        "added(adapted, gradients, lambda name: -self.rate(name))",
        "added(adapted, gradients, lambda name: -1.01 * self.rate(name))",
        "gradient/test_meta_gradient.py",
        "maml and not imaml",
    ),
    Mutation(
        "Meta-SGD's rates",
        "gradient/inner_rules.py",
        "gradients[name], value=-1)",
        "gradients[name], value=-1.01)",
        "gradient/test_meta_gradient.py",
        "test_learned_rates",
    ),
    Mutation(
        "LSLR: the first step's rate in every step",
        "gradient/inner_rules.py",
        "[min(step, len(learned[name]) - 1)]",
        "[0]",
        "gradient/test_meta_gradient.py",
        "learned_rates_of_each or last_rate",
    ),
    Mutation(
        "Meta-Curvature: U and V change places",
        "gradient/inner_rules.py",
        '(gradient @ learned[f"{name}.u"]) @ learned[f"{name}.v"].T',
        '(gradient @ learned[f"{name}.v"]) @ learned[f"{name}.u"].T',
        "gradient/test_inner_rules.py",
        "curvature",
    ),
    Mutation(
        "Reptile's sign",
        "gradient/meta_gradient.py",
        "start[name].detach() - value",
        "value - start[name].detach()",
        "gradient/test_meta_gradient.py",
        "reptile",
    ),
    Mutation(
        "iMAML: lambda",
        "gradient/meta_gradient.py",
        "torch.zeros_like(v[name])) / strength for name in names",
        "torch.zeros_like(v[name])) / (1.01 * strength) for name in names",
        "gradient/test_meta_gradient.py",
        "imaml",
    ),
    Mutation(
        "second derivatives left out where they are products",
        "gradient/meta_gradient.py",
        "products(self._support(self._steps), self.phi, self.fixed, direction, cotangent)",
        "pass",
        "gradient/test_meta_gradient.py",
        "test_maml",
    ),
    Mutation(
        "second derivatives left out where graphs are kept",
        "gradient/meta_gradient.py",
        "add_to(cotangent, graph.products(direction))",
        "pass",
        "gradient/test_meta_gradient.py",
        "test_maml",
    ),
    Mutation(
        "forward over reverse",
        "gradient/second_order.py",
        "{name: tangent for name",
        "{name: 1.01 * tangent for name",
        "gradient/test_meta_gradient.py",
        "test_maml",
    ),
    Mutation(
        "finite differences",
        "gradient/second_order.py",
        "gradient * (sign / (2 * step))",
        "gradient * (sign / (2.02 * step))",
        "gradient/test_meta_gradient.py",
        "finite_differences_are",
    ),
    Mutation(
        "losses along the way: the next step's weight",
        "gradient/meta_gradient.py",
        "_query_gradient(episode, tape.phi, fixed, weights[k - 1])",
        "_query_gradient(episode, tape.phi, fixed, weights[k])",
        "gradient/test_meta_gradient.py",
        "along_the_way",
    ),
    Mutation(
        "weights of the losses along the way",
        "meta/schedule.py",
        "max(1.0 - step / until, 0.03) / inner_steps",
        "max(1.0 - step / until, 0.03)",
        "meta/test_algorithm.py",
        "weights",
    ),
    Mutation(
        "ProtoNet: |c| for |c|^2",
        "models/heads.py",
        '"bias": -scale * means.square().sum(1)',
        '"bias": -scale * means.square().sum(1).sqrt()',
        "models/test_heads.py",
        "prototype",
    ),
    Mutation(
        "cosines to means that are not normalised", "models/heads.py", 'F.normalize(means, dim=1), "bias"', 'means, "bias"', "models/test_heads.py", "cosine"
    ),
    Mutation(
        "ridge: lambda",
        "models/heads.py",
        'learned["log_lambda"].exp() * torch.eye',
        '1.01 * learned["log_lambda"].exp() * torch.eye',
        "models/test_heads.py",
        "ridge",
    ),
    Mutation("generated head: sums for means", "models/heads.py", "(one_hot / one_hot.sum(0)).T", "one_hot.T", "models/test_heads.py", "generated"),
    Mutation(
        "shared head: one class's gradient",
        "models/heads.py",
        'learned["row"].expand_as(empty["weight"]).clone()',
        'torch.cat([learned["row"][None], learned["row"].detach().expand(len(empty["bias"]) - 1, -1)])',
        "models/test_heads.py",
        "shared",
    ),
    Mutation(
        "dropout: the same masks in every step",
        "meta/noise.py",
        "_mixed(self._seed, role, part, step, draw)",
        "_mixed(self._seed, role, part, 0, draw)",
        "meta/test_learner.py",
        "of_the_episode_and_the_step",
    ),
    Mutation(
        "dropout: other masks in every pass",
        "meta/noise.py",
        "_mixed(self._seed, role, part, step, draw)",
        "int(torch.randint(2**40, (1,)))",
        "meta/test_learner.py",
        "agree_with_noise and lora",
    ),
    Mutation(
        "the graph from phi_0 to theta is cut",
        "meta/text_losses.py",
        "phi = {name: begin[name] for name in classifier.adapted}",
        "phi = {name: begin[name].detach() for name in classifier.adapted}",
        "meta/test_learner.py",
        "unrolled_graph and zero",
    ),
    Mutation(
        "prototypes are constants",
        "meta/text_losses.py",
        "first = head.start(learned, empty, features,",
        "first = head.start(learned, empty, features if features is None else features.detach(),",
        "meta/test_learner.py",
        "unrolled_graph and prototype-all",
    ),
    Mutation(
        "a context is meta-trained",
        "meta/functional.py",
        "if row_of(algorithm.adapt).starts_at_zero else []",
        "if False else []",
        "meta/test_learner.py",
        "context_starts",
    ),
    Mutation("LoRA and IA3 are not folded", "models/adapters.py", "module.merge()", "pass", "models/test_adapters.py", "plain_model"),
    Mutation(
        "a context is not folded",
        "models/adapters.py",
        "module.weight.data += F.linear(module.context, module.context_map).detach()",
        "pass",
        "models/test_adapters.py",
        "plain_model",
    ),
    Mutation(
        "attention shares are constants",
        "models/batches.py",
        "shares = F.dropout(F.softmax(scores, dim=-1), dropout, training=dropout > 0)",
        "shares = F.dropout(F.softmax(scores, dim=-1).detach(), dropout, training=dropout > 0)",
        "meta/test_learner.py",
        "finite_differences",
    ),
    Mutation(
        "noise of another step in second derivatives",
        "gradient/meta_gradient.py",
        "step=k if self._start is None else 0",
        "step=0",
        "meta/test_learner.py",
        "agree_with_noise and forward",
    ),
    Mutation(
        "a language model's target is scored one token late",
        "models/language_model.py",
        "- sizes - 1  # the",
        "- sizes  # the",
        "models/test_language_model.py",
        "losses_are_those and gpt2",
    ),
    Mutation(
        "choices are read as if texts of a batch were as long as each other",
        "models/choices.py",
        "cache.tokens[:, None] + position",
        "cache.mask.shape[1] + position",
        "models/test_choices.py",
        "each_pair_in_a_batch and gpt2 and once",
    ),
    Mutation(
        "the least likely label is chosen",
        "models/scoring.py",
        "found = -losses_of_choices(",
        "found = losses_of_choices(",
        "meta/test_language_learner.py",
        "chosen_by_the_likelihood",
    ),
    Mutation(
        "An encoder is trained on what is left out to judge it",
        "meta/encoder_fit.py",
        "self.rng.permutation(self.examples)",
        "self.rng.permutation(len(self.support.texts))",
        "meta/test_encoder_fit.py",
        "left_out_has_no_part",
    ),
    Mutation(
        "Embedding rows of a trained encoder are lost",
        "meta/encoder_fit.py",
        "index_copy(0, self.support.rows, found[name])",
        "clone()",
        "meta/test_encoder_fit.py",
        "adam_on_the_whole_model",
    ),
    Mutation(
        "a fitted head has seen the examples that it is judged on",
        "meta/head_fit.py",
        "seen[number, torch.from_numpy(fold)] = 0",
        "seen[number, torch.from_numpy(fold)] = 1",
        "meta/test_head_fit.py",
        "has_not_seen",
    ),
    Mutation(
        "the L2 strength of a fitted head is halved",
        "meta/head_fit.py",
        "l2 / 2 *",
        "l2 / 4 *",
        "meta/test_head_fit.py",
        "is_the_minimum",
    ),
    Mutation(
        "the model that is kept is as far from the other end",
        "training/outer.py",
        "torch.lerp(initial[name], value, share)",
        "torch.lerp(value, initial[name], share)",
        "training/test_weight_interpolation.py",
        "parameters_with_an_initial_value",
    ),
    Mutation(
        "the contrastive term compares a text with itself",
        "meta/contrastive.py",
        "same = (classes[:, None] == classes) & ~itself",
        "same = classes[:, None] == classes",
        "meta/test_contrastive.py",
        "supervised_loss_by_loops",
    ),
    Mutation(
        "a bandit forgets how seldom a task is drawn",
        "tasks/sampler.py",
        "scaled / (weight * len(self._base)) * self.config.exploration",
        "0 * scaled",
        "tasks/test_sampler.py",
        "bandit_draws",
    ),
    Mutation(
        "a sampler's state is not taken up",
        "training/trainer.py",
        'self.sampler.state = SamplerState(**found.state["sampler"])',
        "pass",
        "commands/test_resume.py",
        "sampler_resumes and bandit",
    ),
    Mutation(
        "support rows come back as queries",
        "tasks/episodes.py",
        'side="right")]',
        'side="left")]',
        "tasks/test_texts.py",
        "queries_are_drawn",
    ),
]


def is_noticed(copy: Path, mutation: Mutation) -> bool:
    """Whether the tests pass before, and fail after, the mutation."""
    path = copy / "metatrain" / mutation.file
    source = path.read_text(encoding="utf-8")
    environment = {**os.environ, "PYTHONPATH": str(copy), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "pytest", "-x", "--nightly", "-p", "no:cacheprovider", f"tests/{mutation.tests}", "-k", mutation.chosen]
    codes = []
    for text in (source, source.replace(mutation.piece, mutation.replacement, 1)):
        path.write_text(text, encoding="utf-8")
        codes.append(subprocess.run(command, cwd=copy, env=environment, capture_output=True).returncode)
    path.write_text(source, encoding="utf-8")
    return codes == [0, 1]


def main() -> None:
    missed = 0
    with tempfile.TemporaryDirectory() as folder:
        archive = subprocess.run(["git", "archive", "HEAD"], cwd=ROOT, capture_output=True, check=True).stdout
        subprocess.run(["tar", "x", "-C", folder], input=archive, check=True)
        chosen = [mutation for mutation in MUTATIONS if not sys.argv[1:] or any(part in mutation.what for part in sys.argv[1:])]
        for mutation in chosen:
            noticed = is_noticed(Path(folder), mutation)
            missed += not noticed
            print(f"{'noticed' if noticed else 'MISSED '}  {mutation.what}", flush=True)
    print(f"{len(chosen) - missed} of {len(chosen)} noticed")
    sys.exit(1 if missed else 0)


if __name__ == "__main__":
    main()
