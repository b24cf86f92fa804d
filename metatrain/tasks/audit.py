"""Do training and test tasks share texts? A score on shared texts would prove nothing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from metatrain.errors import UserError
from metatrain.tasks.task import Task, TaskDistribution

POLICIES = ("refuse", "drop", "keep")


def check_policy(policy: str) -> None:
    """Raises: UserError: the policy is unknown."""
    if policy not in POLICIES:
        raise UserError(f"tasks.overlap={policy} is unknown; choose one of {', '.join(POLICIES)}")


def check_overlap(tasks: TaskDistribution, policy: str, notes: list[str]) -> TaskDistribution:
    """Refuse texts shared between splits, or drop them from the earlier split, and record what was found.

    Raises:
        UserError: texts are shared and `policy` is `refuse`.
    """
    if policy == "keep":
        return replace(tasks, notes=(*notes, "tasks.overlap=keep: splits may share texts, so the scores prove nothing"))
    protected: set[bytes] = set()
    kept = {}
    for name in ("meta_test", "meta_validation", "meta_train"):
        split = tasks.split(name)
        shared = sum(len(task.keys() & protected) for task in split)
        if shared and policy == "refuse":
            task = next(task for task in split if task.keys() & protected)
            raise UserError(
                f"{shared} texts of tasks.{name} (task '{task.name}' among them) are also in a held-out split; set tasks.overlap=drop to leave them out of it"
            )
        if shared:
            notes.append(f"{shared} texts left out of {name}: they are also in a held-out split")
            split = tuple(task.without(protected) for task in split)
        kept[name] = split
        protected.update(*(task.keys() for task in split))
    return replace(tasks, **kept, notes=tuple(notes))


def without_seen(tasks: Sequence[Task], seen: Sequence[Task]) -> tuple[tuple[Task, ...], list[str]]:
    """Test tasks without the texts of the tasks that a model was trained on, and a note if there were any."""
    known = set().union(*(task.keys() for task in seen))
    shared = sum(len(task.keys() & known) for task in tasks)
    if not shared:
        return tuple(tasks), []
    return tuple(task.without(known) for task in tasks), [f"{shared} texts left out of the test tasks: the model was trained on them"]
