"""The configuration and the rules of a command: where they are found, and what is wrong with them, at which line."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Final, NamedTuple

import msgspec
import typer

from cli.failures import MISUSED, CliError
from cli.screen import print_note
from schemas.complaints import Complaint, Document, read_toml
from schemas.rules import CategoryFile, Rules, category_members, rules_from
from schemas.settings import ENVIRONMENT_PREFIX, Settings, settings_from

DEFAULT_PATH: Final = Path("onhand.toml")

ConfigOption = Annotated[
    Path | None,
    typer.Option("--config", "-c", envvar="ONHAND_CONFIG", metavar="FILE", help="Configuration [onhand.toml]."),
]


class Located(NamedTuple):
    """A complaint and the file that it is about, as people named it."""

    file: str
    complaint: Complaint

    def line(self) -> str:
        """`file:line: severity: path: message`, without what is not known."""
        at = "" if self.complaint.line is None else f":{self.complaint.line}"
        about = f"{self.complaint.path}: " if self.complaint.path else ""
        return f"{self.file}{at}: {self.complaint.severity}: {about}{self.complaint.message}"


class Configuration(NamedTuple):
    """The settings in force; relative paths in them begin at `folder`."""

    settings: Settings
    folder: Path
    file: Path | None  # None: there is none, all is default

    def at(self, path: str) -> Path:
        """A path of the settings as one to open."""
        return self.folder / path

    @property
    def rules_path(self) -> Path:
        """Where the business rules are."""
        return self.at(self.settings.rules.path)


def load_configuration(config: Path | None, environment: Mapping[str, str]) -> Configuration:
    """The configuration of a command; CliError (exit 2), after all complaints on standard error, where one is wrong."""
    configuration, complaints = read_configuration(config, environment)
    stop_on_errors(complaints)
    return configuration


def load_rules(path: Path) -> Rules:
    """The rules at `path`, categories expanded; CliError (exit 2), after all complaints, where something is wrong."""
    rules, complaints = read_rules(path)
    stop_on_errors(complaints)
    return rules


def read_configuration(config: Path | None, environment: Mapping[str, str]) -> tuple[Configuration, list[Located]]:
    """The configuration at `config` (None: onhand.toml here, or defaults) under the environment, and all complaints."""
    path = DEFAULT_PATH if config is None and DEFAULT_PATH.exists() else config
    document, faults = _read_document(path) if path is not None else (Document({}, {}), [])
    settings, complaints = settings_from(document, environment)
    located = [
        Located("environment" if _of_environment(complaint) else str(path), complaint) for complaint in complaints
    ]
    return Configuration(settings, path.parent if path is not None else Path(), path), faults + located


def read_rules(path: Path) -> tuple[Rules, list[Located]]:
    """The rules at `path`, with the members of category files in their places, and all complaints."""
    document, faults = _read_document(path)
    if faults:
        return Rules(), faults
    rules, complaints = rules_from(document)
    located = [Located(str(path), complaint) for complaint in complaints]
    categories = dict(rules.categories)
    for name, members in rules.categories.items():
        if isinstance(members, CategoryFile):
            categories[name] = _members(path, document, name, members, located)
    return msgspec.structs.replace(rules, categories=categories), list(dict.fromkeys(located))


def is_rules(path: Path) -> bool:
    """Whether the file at `path` holds rules, by its tables, or by its name where they do not tell."""
    document, _ = _read_document(path)
    rules_tables = {"locations", "channels", "categories", "sources", "replenishment"} & document.values.keys()
    settings_tables = {"kafka", "redis", "state", "input", "output", "metrics"} & document.values.keys()
    if "rules" in document.values:
        (rules_tables if isinstance(document.values["rules"], list) else settings_tables).add("rules")
    if len(rules_tables) == len(settings_tables):
        return "rules" in path.name
    return len(rules_tables) > len(settings_tables)


def count_errors(complaints: Iterable[Located]) -> int:
    """How many of them forbid to go on."""
    return sum(located.complaint.severity == "error" for located in complaints)


def stop_on_errors(complaints: list[Located]) -> None:
    """Print them on standard error; CliError (exit 2) where one is an error."""
    for located in complaints:
        print_note(located.line())
    if errors := count_errors(complaints):
        things = "one error" if errors == 1 else f"{errors} errors"
        raise CliError(f"{things} in the configuration, listed above; correct it and ask `onhand check`", MISUSED)


def _read_document(path: Path) -> tuple[Document, list[Located]]:
    """The TOML file at `path`; empty, with the complaint, where it cannot be read."""
    text = _read_text(path)
    found = read_toml(text) if isinstance(text, str) else text
    if isinstance(found, Complaint):
        return Document({}, {}), [Located(str(path), found)]
    return found, []


def _read_text(path: Path) -> str | Complaint:
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return Complaint("error", None, "", "there is no such file")
    except UnicodeDecodeError as error:
        return Complaint("error", None, "", f"is not UTF-8: {error.reason} at byte {error.start}")
    except OSError as error:
        return Complaint("error", None, "", f"cannot be read: {error.strerror}")


def _of_environment(complaint: Complaint) -> bool:
    return complaint.line is None and complaint.path.startswith(ENVIRONMENT_PREFIX)


def _members(
    rules_path: Path, document: Document, name: str, source: CategoryFile, located: list[Located]
) -> tuple[str, ...]:
    """The SKUs of a category that stands in a CSV beside the rules."""
    path = rules_path.parent / source.file
    text = _read_text(path)
    at = ("categories", name)
    if isinstance(text, Complaint):
        located.append(Located(str(rules_path), document.complaint(at, f"{path}: {text.message}")))
        return ()
    members, faults = category_members(name, text)
    located.extend(Located(str(path), Complaint("error", line, "", fault)) for line, fault in faults)
    if not members and not faults:
        located.append(Located(str(rules_path), document.complaint(at, f"{path} names no SKU of it", "warning")))
    return members
