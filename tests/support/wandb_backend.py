"""A stand-in for the W&B server on the loopback, enough for the real client to run, resume, and move artifacts.

It answers GraphQL by the operation's name and keeps runs, files and artifacts in memory. An operation or an address it
does not know is recorded in `unknown`, so that a test fails on it instead of passing on an empty answer.
"""

import base64
import json
import re
import threading
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from wandb_sweeps import Sweeps

Answer = dict[str, Any]
ENTITY = "tester"
DAY = "2026-01-01T00:00:00Z"


def identity(kind: str, name: object) -> str:
    """Return an id in the form of the server's."""
    return base64.b64encode(f"{kind}:{name}".encode()).decode()


@dataclass
class StoredRun:
    """A run as the server has it; history and output by line number."""

    name: str
    project: str
    display_name: str
    group: str = ""
    job_type: str = ""
    tags: list[str] = field(default_factory=list)
    config: dict[str, Any] = field(default_factory=dict)
    summary: dict[str, Any] = field(default_factory=dict)
    history: dict[int, dict[str, Any]] = field(default_factory=dict)
    events: dict[int, dict[str, Any]] = field(default_factory=dict)
    output: dict[int, str] = field(default_factory=dict)
    state: str = "running"
    exit_code: int | None = None

    @property
    def rows(self) -> list[dict[str, Any]]:
        """The history in order."""
        return [self.history[line] for line in sorted(self.history)]

    def settings(self) -> dict[str, Any]:
        """Return the config as plain values, without the client's own."""
        return {key: entry["value"] for key, entry in self.config.items() if key != "_wandb"}


@dataclass
class StoredArtifact:
    """A version of an artifact; `files` are addresses by name."""

    id: str
    type: str
    collection: str
    digest: str
    version: int
    run: str | None
    metadata: str = "{}"
    state: str = "PENDING"
    aliases: list[str] = field(default_factory=list)
    files: dict[str, str] = field(default_factory=dict)
    manifest: str = ""


class Backend(Sweeps):
    """What the server knows. The methods `on_…` answer the operation of that name."""

    def __init__(self) -> None:
        """Start with nothing; `url` is set when it listens.

        `fault` is what it does in place of answering: close, hang (until `mended` is set), or a status such as 500.
        """
        super().__init__()
        self.fault = ""
        self.mended = threading.Event()
        self.lock = threading.RLock()
        self.url = ""
        self.operations: Counter[str] = Counter()
        self.unknown: list[str] = []
        self.runs: dict[str, StoredRun] = {}
        self.artifacts: dict[str, StoredArtifact] = {}
        self.storage: dict[str, bytes] = {}

    def graphql(self, request: Answer) -> Answer:
        """Answer a query or a mutation."""
        match = re.search(r"(?:query|mutation)\s+(\w+)", request["query"])
        name = request.get("operationName") or (match[1] if match else "")
        self.operations[name] += 1
        answer = getattr(self, f"on_{name}", None)
        if answer is None:
            self.unknown.append(name)
            return {"errors": [{"message": f"no such operation: {name}"}]}
        variables = request.get("variables") or {}
        return {"data": answer(variables.get("input") or variables)}

    def address(self, path: str) -> str:
        """Return the URL of a stored file."""
        return f"{self.url}/storage/{path}"

    def live(self) -> bool:
        """Return whether an agent's run has not ended."""
        ended = [run for run in self.runs.values() if run.name.startswith("handed") and run.state != "running"]
        return len(ended) < self.handed

    # the user and the server
    def on_Viewer(self, asked: Answer) -> Answer:
        user: Answer = {"id": identity("User", 1), "entity": ENTITY, "username": ENTITY, "email": "", "flags": "{}"}
        return {"viewer": {**user, "teams": {"edges": [{"node": {"name": ENTITY}}]}}}

    on_GetDefaultEntity = on_Viewer

    def on_ServerFeaturesQuery(self, asked: Answer) -> Answer:
        return {"serverInfo": {"features": []}}

    def on_OrganizationCoreWeaveOrganizationID(self, asked: Answer) -> Answer:
        return {"entity": {"organization": {"coreWeaveOrganizationId": None}}}

    # runs
    def on_UpsertBucket(self, asked: Answer) -> Answer:
        name = asked.get("name") or base64.b64decode(asked["id"]).decode().partition(":")[2]
        inserted = name not in self.runs
        run = self.runs.setdefault(name, StoredRun(name, asked.get("project") or "", asked.get("displayName") or name))
        run.config.update(json.loads(asked.get("config") or "{}"))
        run.summary.update(json.loads(asked.get("summaryMetrics") or "{}"))
        run.group = asked.get("groupName") or run.group
        run.job_type = asked.get("jobType") or run.job_type
        run.tags = asked.get("tags") or run.tags
        bucket: Answer = {
            "id": identity("Run", name),
            "name": name,
            "displayName": run.display_name,
            "description": None,
        }
        bucket |= {"config": json.dumps(run.config), "sweepName": None, "project": self._project(run.project)}
        return {"upsertBucket": {"bucket": {**bucket, "historyLineCount": len(run.history)}, "inserted": inserted}}

    def on_RunResumeStatus(self, asked: Answer) -> Answer:
        run = self.runs.get(asked["name"])
        if run is None:
            return {"model": {**self._project(asked.get("project") or ""), "bucket": None}}
        bucket: Answer = {
            "id": identity("Run", run.name),
            "name": run.name,
            "displayName": run.display_name,
            "tags": run.tags,
        }
        bucket |= {
            "config": json.dumps(run.config),
            "summaryMetrics": json.dumps(run.summary),
            "wandbConfig": '{"t":1}',
        }
        for kind, lines in (("history", run.history), ("events", run.events)):
            tail = [json.dumps(lines[max(lines)])] if lines else []
            bucket |= {f"{kind}LineCount": len(lines), f"{kind}Tail": json.dumps(tail)}
        return {"model": {**self._project(run.project), "bucket": {**bucket, "logLineCount": len(run.output)}}}

    def on_CreateRunFiles(self, asked: Answer) -> Answer:
        files = [{"name": name, "uploadUrl": self.address(f"runs/{asked['run']}/{name}")} for name in asked["files"]]
        return {"createRunFiles": {"runID": identity("Run", asked["run"]), "uploadHeaders": [], "files": files}}

    def file_stream(self, name: str, sent: Answer) -> Answer:
        """Take lines of history, events, summary and output, and the end of a run."""
        run = self.runs[name]
        for file, chunk in (sent.get("files") or {}).items():
            if file == "wandb-summary.json":
                run.summary = json.loads(chunk["content"][-1])
                continue
            numbered = enumerate(chunk["content"], chunk["offset"])
            if file == "output.log":
                run.output.update(numbered)
            else:
                lines = {"wandb-history.jsonl": run.history, "wandb-events.jsonl": run.events}[file]
                lines.update((number, json.loads(line)) for number, line in numbered)
        if sent.get("complete"):
            run.exit_code = int(sent["exitcode"])
            run.state = "failed" if run.exit_code else "finished"
        return {"exitcode": None, "limits": {}}

    @staticmethod
    def _project(name: str) -> Answer:
        return {"id": identity("Project", name), "name": name, "entity": {"id": identity("Entity", 1), "name": ENTITY}}

    # artifacts, from the client
    def on_ArtifactType(self, asked: Answer) -> Answer:
        versions = self.versions(asked["name"].rpartition("/")[2].partition(":")[0])
        return {"project": {"artifact": {"artifactType": {"name": versions[0].type}} if versions else None}}

    def on_CreateArtifact(self, asked: Answer) -> Answer:
        collection = asked.get("artifactCollectionName") or asked["artifactCollectionNames"][0]
        versions = self.versions(collection)
        same = [known for known in versions if known.digest == asked["digest"]]
        number = len(self.artifacts)
        new = StoredArtifact(
            identity("Artifact", number), asked["artifactTypeName"], collection, asked["digest"], len(versions),
            asked.get("runName"), asked.get("metadata") or "{}",
        )  # fmt: skip
        artifact = same[0] if same else new
        self.artifacts[artifact.id] = artifact
        for alias in [entry["alias"] for entry in asked.get("aliases") or []]:
            for other in versions:
                other.aliases = [name for name in other.aliases if name != alias]
            artifact.aliases.append(alias)
        committed = [known for known in versions if known.state == "COMMITTED"]
        latest = {"id": committed[-1].id, "versionIndex": committed[-1].version} if committed else None
        sequence = {"id": identity("Sequence", collection), "latestArtifact": latest}
        return {
            "createArtifact": {"artifact": {"id": artifact.id, "state": artifact.state, "artifactSequence": sequence}}
        }

    def on_CreateArtifactManifest(self, asked: Answer) -> Answer:
        artifact = self.artifacts[asked["artifactID"]]
        artifact.manifest = self.address(f"manifests/{artifact.id}")
        file = {"id": artifact.id, "name": asked["name"], "displayName": asked["name"], "uploadHeaders": []}
        manifest: Answer = {"id": artifact.id, "file": {**file, "uploadUrl": artifact.manifest}}
        return {"createArtifactManifest": {"artifactManifest": manifest}}

    def on_UpdateArtifactManifest(self, asked: Answer) -> Answer:
        made = self.on_CreateArtifactManifest(
            {"artifactID": asked["artifactManifestID"], "name": "wandb_manifest.json"}
        )
        return {"updateArtifactManifest": made["createArtifactManifest"]}

    def on_CreateArtifactFiles(self, asked: Answer) -> Answer:
        edges = []
        for file in asked["artifactFiles"]:
            name, place = file["name"], f"artifacts/{file['artifactID']}/{file['name']}"
            self.artifacts[file["artifactID"]].files[name] = self.address(place)
            node = {"id": identity("File", place), "name": name, "displayName": name, "uploadHeaders": []}
            node |= {"uploadUrl": self.address(place), "uploadMultipartUrls": None, "storagePath": place}
            edges.append({"node": {**node, "artifact": {"id": file["artifactID"]}}})
        return {"createArtifactFiles": {"files": {"edges": edges}}}

    def on_CommitArtifact(self, asked: Answer) -> Answer:
        artifact = self.artifacts[asked["artifactID"]]
        artifact.state = "COMMITTED"
        return {"commitArtifact": {"artifact": {"id": artifact.id, "digest": artifact.digest}}}

    def versions(self, collection: str) -> list[StoredArtifact]:
        """Return the versions of an artifact, oldest first."""
        return [artifact for artifact in self.artifacts.values() if artifact.collection == collection]

    # artifacts, to the client
    def on_ArtifactMembershipByName(self, asked: Answer) -> Answer:
        artifact = self._named(asked["name"])
        membership: Answer = {"id": identity("Member", artifact.id), "versionIndex": artifact.version, "createdAt": DAY}
        membership |= {"aliases": self._aliases(artifact), "artifactCollection": self._collection(artifact)}
        return {"project": {"artifactCollectionMembership": {**membership, "artifact": self._fragment(artifact)}}}

    def on_ArtifactByID(self, asked: Answer) -> Answer:
        return {"artifact": self._fragment(self.artifacts[asked["id"]])}

    def on_FetchArtifactManifest(self, asked: Answer) -> Answer:
        return {"artifact": {"currentManifest": {"file": {"directUrl": self.artifacts[asked["id"]].manifest}}}}

    def on_GetArtifactMembershipFileUrls(self, asked: Answer) -> Answer:
        artifact = self._named(f"{asked['collection']}:{asked['alias']}")
        nodes = [{"__typename": "File", "name": name, "directUrl": url} for name, url in artifact.files.items()]
        page = {"__typename": "PageInfo", "endCursor": None, "hasNextPage": False}
        files = {"pageInfo": page, "edges": [{"node": node} for node in nodes]}
        return {
            "project": {
                "artifactCollection": {"__typename": "ArtifactSequence", "artifactMembership": {"files": files}}
            }
        }

    def _named(self, name: str) -> StoredArtifact:
        collection, _, alias = name.partition(":")
        return next(known for known in self.versions(collection) if alias in (*known.aliases, f"v{known.version}"))

    def _collection(self, artifact: StoredArtifact) -> Answer:
        names: Answer = {"id": identity("Sequence", artifact.collection), "name": artifact.collection}
        project = {**self._project("project"), "internalId": identity("Internal", 1)}
        return {"__typename": "ArtifactSequence", **names, "project": project, "type": {"name": artifact.type}}

    def _aliases(self, artifact: StoredArtifact) -> list[Answer]:
        collection = self._collection(artifact)
        return [
            {
                "__typename": "ArtifactAlias",
                "id": identity("Alias", name),
                "alias": name,
                "artifactCollection": collection,
            }
            for name in artifact.aliases
        ]

    def _fragment(self, artifact: StoredArtifact) -> Answer:
        known: Answer = {
            "__typename": "Artifact",
            "id": artifact.id,
            "digest": artifact.digest,
            "state": artifact.state,
        }
        known |= {"artifactSequence": self._collection(artifact), "aliases": self._aliases(artifact)}
        known |= {"versionIndex": artifact.version, "artifactType": {"name": artifact.type}, "size": 1}
        known |= {"description": None, "metadata": artifact.metadata, "tags": [], "historyStep": None}
        known |= {"ttlDurationSeconds": -1, "ttlIsInherited": False, "commitHash": "", "fileCount": len(artifact.files)}
        return {**known, "createdAt": DAY, "updatedAt": DAY}
