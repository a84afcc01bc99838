"""The part of the stand-in for the W&B backend that keeps sweeps and hands their runs out to agents."""

import base64
import json
from typing import Any

import yaml

Answer = dict[str, Any]


class Sweeps:
    """Keeps sweeps, and gives agents one run after the other; the methods `on_…` answer the operation of that name.

    Attributes:
        sweeps: The files, by the sweep's name.
        waiting: The arguments of the runs that agents are to start.
        handed: How many runs were handed out.
    """

    def __init__(self) -> None:
        """Know no sweep."""
        self.sweeps: dict[str, Answer] = {}
        self.waiting: list[dict[str, Any]] = []
        self.handed = 0

    def live(self) -> bool:
        """Return whether a run that was handed out has not ended; the backend knows."""
        raise NotImplementedError

    def on_UpsertSweep(self, asked: Answer) -> Answer:
        name = f"sweep{len(self.sweeps)}"
        self.sweeps[name] = yaml.safe_load(asked["config"])
        return {"upsertSweep": {"sweep": self._sweep(name), "configValidationWarnings": []}}

    def on_CreateAgent(self, asked: Answer) -> Answer:
        return {"createAgent": {"agent": {"id": identity("Agent")}}}

    def on_Heartbeat(self, asked: Answer) -> Answer:
        commands: list[Answer] = []
        if self.waiting and not self.live():
            arguments = {key: {"value": value} for key, value in self.waiting.pop(0).items()}
            commands = [{"type": "run", "run_id": f"handed{self.handed}", "args": arguments, "program": "finetune"}]
            self.handed += 1
        elif not self.live():
            commands = [{"type": "exit"}]
        return {"agentHeartbeat": {"agent": {"id": identity("Agent")}, "commands": json.dumps(commands)}}

    on_AgentHeartbeat = on_Heartbeat

    def on_SweepWithRuns(self, asked: Answer) -> Answer:
        return {"project": {"sweep": self._sweep(next(iter(self.sweeps)))}}

    on_Sweep = on_SweepWithRuns

    def _sweep(self, name: str) -> Answer:
        kept = self.sweeps[name]
        project = {"id": identity("Project"), "name": "bees", "entity": {"id": identity("Entity"), "name": "tester"}}
        return {
            "id": identity(name), "name": name, "displayName": name, "method": kept["method"], "state": "RUNNING",
            "description": "", "config": yaml.safe_dump(kept), "createdAt": "2026-01-01T00:00:00", "heartbeatAt": None,
            "updatedAt": None, "earlyStopJobRunning": False, "controller": "", "scheduler": "", "project": project,
            "priorRuns": [], "runs": {"edges": []}, "bestLoss": None,
            "user": {"id": identity("User"), "name": "tester", "username": "tester"},
        }  # fmt: skip


def identity(kind: str) -> str:
    """Return an id in the form of the server's."""
    return base64.b64encode(f"{kind}:1".encode()).decode()
