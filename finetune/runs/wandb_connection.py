"""The connection to W&B: online, offline or none, and never at the cost of a run.

A server that cannot be reached, hangs or is out of order is noticed in seconds, and the run is kept offline.
"""

import json
import logging
import netrc
import os
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import wandb

from finetune.errors import ConfigError, nearest

log = logging.getLogger(__name__)

WANDB_MODES = ("auto", "online", "offline", "disabled")
OFFLINE = "or set logger.wandb.mode=offline and upload later with wandb sync."
# seconds: of a first answer, of the beginning of a run, and of its end
ANSWER, BEGIN, END = 5.0, 10.0, 25.0


def open_wandb_run(**options: Any) -> "wandb.Run":
    """Open a W&B run, offline where the server gives none, with the client's errors as ours.

    Raises:
        ConfigError: The key or an option is refused.
    """
    settings = options.pop("settings", wandb.Settings())
    settings.init_timeout, settings.finish_timeout, settings.finish_timeout_raises = BEGIN, END, False
    online = options.get("mode") == "online"
    cause = unanswered() if online else ""
    if online and not cause:
        try:
            return wandb.init(**options, settings=settings)
        except wandb.errors.AuthenticationError as error:
            near = f"Log in (wandb login --relogin), {OFFLINE}"
            raise ConfigError(f"W&B refuses the key: {first_line(error)} {near}") from error
        except wandb.errors.UsageError as error:
            raise ConfigError(f"W&B refuses the run: {first_line(error)} Change logger.wandb, {OFFLINE}") from error
        except wandb.errors.Error as error:
            cause = first_line(error)
    if online:
        server = wandb.setup().settings.base_url
        log.warning("The W&B server %s gives no run (%s): it is kept offline. Upload it later with wandb sync.",
                    server, cause.rstrip("."))  # fmt: skip
    try:
        return wandb.init(**{**options, "mode": "offline", "resume": None}, settings=settings)
    except wandb.errors.UsageError as error:
        raise ConfigError(f"W&B refuses the run: {first_line(error)} Change logger.wandb, {OFFLINE}") from error


def unanswered() -> str:
    """Return why the server answers no question; empty where it answers."""
    server = str(wandb.setup().settings.base_url)
    question = json.dumps({"query": "query Viewer { viewer { id } }", "operationName": "Viewer"}).encode()
    request = urllib.request.Request(f"{server}/graphql", question, {"Content-Type": "application/json"})
    try:
        with urllib.request.urlopen(request, timeout=ANSWER):
            return ""
    except urllib.error.HTTPError as error:
        return "" if error.code < 500 and error.code != 429 else f"it answers {error.code}"
    except (OSError, ValueError) as error:  # refused, no such name, no answer in time, half an answer
        return str(getattr(error, "reason", error)) or type(error).__name__


def resolve_mode(mode: str) -> str:
    """Return online, offline or disabled; auto is what WANDB_MODE says, else online exactly if the user is logged in.

    Raises:
        ConfigError: Online is asked for without being logged in, or WANDB_MODE is not known.
    """
    said = os.environ.get("WANDB_MODE", "") if mode == "auto" else mode
    if not said:
        return "online" if is_logged_in() else "offline"
    if said not in WANDB_MODES[1:]:
        raise ConfigError(
            f"WANDB_MODE={said} is not known. Use {', '.join(WANDB_MODES[1:])}.{nearest(said, WANDB_MODES[1:])}"
        )
    if said == "online" and not is_logged_in():
        raise ConfigError(f"W&B is to be online, but there is no key for it. Log in (wandb login), {OFFLINE}")
    return said


def is_logged_in() -> bool:
    """Return whether there is a key for the W&B server: in the environment, in its settings, or from `wandb login`."""
    settings = wandb.setup().settings
    if os.environ.get("WANDB_API_KEY") or os.environ.get("WANDB_IDENTITY_TOKEN_FILE") or settings.api_key:
        return True
    hosts = [urlsplit(server := str(settings.base_url)).netloc]
    if server == str(wandb.Settings().base_url):
        hosts.append("api.wandb.ai")  # the key of the public server is stored under this name, whatever its address
    file = Path(os.environ.get("NETRC") or Path.home() / ".netrc").expanduser()
    try:
        return any(netrc.netrc(str(file)).authenticators(host) is not None for host in hosts)
    except (OSError, netrc.NetrcParseError):
        return False


def first_line(error: BaseException) -> str:
    """Return the first line of an error, with a full stop."""
    text = str(error).strip().splitlines()
    return f"{text[0].rstrip('.')}." if text else f"{type(error).__name__}."
