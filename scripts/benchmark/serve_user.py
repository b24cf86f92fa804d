"""A client of `metatrain serve` for locust: it predicts one text of a random task, and waits for the answer before the next.

    locust -f scripts/benchmark/serve_user.py --headless --users 8 --run-time 10s --host http://127.0.0.1:8000

The environment variable SERVE_TASKS is the number of tasks, t0, t1, ...
"""

from __future__ import annotations

import os
import random

from locust import HttpUser, task

TASKS = int(os.environ.get("SERVE_TASKS", "1"))
TEXTS = ("where is my parcel?", "the handle came off after two days of careful use", "great", "I would like to know when my order will arrive, please.")


class Client(HttpUser):
    """One client."""

    @task
    def predict(self) -> None:
        """Predict one text; statistics of all tasks are one row."""
        self.client.post(f"/tasks/t{random.randrange(TASKS)}/predict", json={"texts": [random.choice(TEXTS)]}, name="predict")
