"""The last step of `train`, and the whole of `evaluate`: arms on meta-test episodes, results.json, the table, and a closer look."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from metatrain.evaluation.adapted_arms import Adapted
from metatrain.evaluation.analysis import accuracy_by_steps, analysed_steps, learned_rates, mapped_tasks, mistakes, step_episodes, task_map
from metatrain.evaluation.full_finetune import FullFinetuned
from metatrain.evaluation.prediction import Arm
from metatrain.evaluation.protocol import SUBJECT, Scores, Setup, evaluate, validation_episodes
from metatrain.evaluation.sharing import Workers
from metatrain.models.encoder import Encoder
from metatrain.run.atomic import write_json
from metatrain.run.directory import RunDirectory
from metatrain.tasks.task import TaskDistribution
from metatrain.tracking.console import Display, results_table, verdict_lines
from metatrain.tracking.inner_steps import steps_table
from metatrain.tracking.score_names import common_score, read_name


class MetaTest:
    """The arms on the episodes of the meta-test tasks, which workers may share; the first of them writes."""

    def __init__(
        self, arms: Mapping[str, Arm], setup: Setup, run: RunDirectory, display: Display, give_way: Callable[[], None], workers: Workers | None = None
    ):
        """`give_way` is called between episodes and may raise."""
        self.arms, self.setup, self.run, self.display = arms, setup, run, display
        self._give_way, self._workers = give_way, workers
        self._writes = workers is None or workers.rank == 0
        self.done, self.total = 0, self._episodes(setup.config.episodes)  # episodes of the meta-test

    def results(self, **facts: Any) -> tuple[dict[str, Any], dict[str, dict[str, Scores]]]:
        """Run the arms, write results.json with `facts` beside the results, show them; returns them and the scores behind them."""
        if self.setup.config.resamples is not None:
            self.display.say("evaluation.resamples has no effect, because intervals are computed in closed form; remove it")
        self._choose_rates()
        self.display.start("meta-test", self.total)
        results, scores = evaluate(self.arms, self.setup, self._on_progress, self._workers)
        if self._writes:
            write_json(self.run.results, {**results, **facts})
        show(results, self.display)
        return results, scores

    def _choose_rates(self) -> None:
        """Choose the learning rates of full finetunes on the meta-validation tasks."""
        arms = {name: arm for name, arm in self.arms.items() if isinstance(arm, FullFinetuned) and arm.config.rates}
        if not arms:
            return
        episodes = validation_episodes(self.setup)
        for name, arm in arms.items():
            if not episodes:
                self.display.say(f"{name}: no meta-validation task has enough rows to choose a learning rate; using {arm.lr:g}")
                continue
            self.display.start(f"learning rate of {name}", len(arm.config.rates) * len(episodes))
            arm.choose_rate(episodes, self._on_progress)
            self.display.stop()
            self.display.say(f"{name}: {arm.config.steps} updates, learning rate {arm.lr:g} of {arm.config.rates}, chosen on meta-validation tasks")

    def analyse(self, scores: Mapping[str, Mapping[str, Scores]], every: TaskDistribution | None = None) -> None:
        """A closer look at the meta-trained model, for the report: analysis.json. `every`: the tasks that are to be on the map."""
        trained = self.arms.get(SUBJECT)
        if not isinstance(trained, Adapted):
            return
        of_trained = {shots: by_arm[SUBJECT] for shots, by_arm in scores.items()}
        found: dict[str, Any] = {}
        if counts := analysed_steps(trained.learner):
            self.display.start(f"after {', '.join(map(str, counts))} inner steps", self._episodes(step_episodes(self.setup.config, len(self.setup.tasks))))
            found["by_steps"] = accuracy_by_steps(trained, of_trained, self.setup, self._on_progress, self._workers)
            self.display.stop()
            score = read_name(common_score(task.main_score for task in self.setup.tasks))
            for shots in found["by_steps"]["by_shots"]:
                self.display.table(steps_table(found["by_steps"], shots, score))
        if not self._writes:
            return
        first = self.setup.config.shots[0]
        found["mistakes"] = mistakes(of_trained[str(first)], self.setup, first)
        found["rates"] = learned_rates(trained.learner)
        model = trained.learner.load_model()
        if every is not None and isinstance(model, Encoder):
            self.display.start("task map", len(mapped_tasks(every)))
            found["task_map"] = task_map(model, every, self.display.advance)
            self.display.stop()
        write_json(self.run.analysis, {"format": 1, **found})

    def _episodes(self, of_task: int) -> int:
        """All of them, if there are so many of each task and number of shots."""
        return len(self.setup.config.shots) * len(self.setup.tasks) * of_task

    def _on_progress(self, done: int) -> None:
        self.display.advance(by=done)
        self.done = min(self.total, self.done + done)
        self._give_way()


def show(results: Mapping[str, Any], display: Display) -> None:
    """Tables and verdicts of every number of shots."""
    for shots in results["by_shots"]:
        display.table(results_table(results, shots))
        for line in verdict_lines(results, shots):
            display.say(line)
