"""The documents stay true: what programs have is named there, what is named there exists, links lead somewhere."""

from __future__ import annotations

import ast
import json
import re
import urllib.parse
from collections.abc import Iterator
from dataclasses import fields
from decimal import Decimal
from pathlib import Path
from typing import Any

import click
import pytest
import yaml

from hengd import events, groupcommit, room
from hengd.cli import EXIT_CODES, cli
from hengd.http import edge, enrol, head, parse, stream
from hengd.http.admission import GateLimits
from hengd.http.secrets import MAX_SECRET_BODY_BYTES
from hengd.rules import (
    audit,
    authority,
    breadth,
    candidates,
    configs,
    joins,
    limits,
    objects,
    overrides,
    rendering,
    reports,
    rescue,
    rescue_window,
    schema_budget,
    schema_compare,
    schema_keywords,
    schema_messages,
    schema_patterns,
    schemas,
    secrets,
    taking,
    timekeeping,
    tokens,
)
from hengd.settings import SETTINGS, Setting, load_settings, toml
from henge_agent.cli import cli as agent_cli
from henge_protocol import header, model, selector, session, strictjson, wire
from henge_protocol.errors import CODES
from hengectl.cli import hengectl
from tests.service import Service
from tests.vectors.henge_ground import MESSAGES

TOP = Path(__file__).parent.parent
DOCS = TOP / "docs"
TEXTS = {path.name: path.read_text("utf-8") for path in sorted(DOCS.glob("*.md"))}
EVERYTHING = "\n".join(TEXTS.values())
LINKED = [
    path
    for path in (
        TOP / "README.md", TOP / "CHANGELOG.md", TOP / "CONTRIBUTING.md", *sorted(DOCS.rglob("*.md")),
        *sorted((TOP / "examples").rglob("*.md")), TOP / "agent" / "README.md", TOP / "tests" / "vectors" / "README.md",
    )
    if path.exists()
]  # fmt: skip


def rows(document: str, first: str) -> Iterator[list[str]]:
    """Rows of every table of a document whose first heading is ``first``, without their code marks."""
    inside = False
    for line in TEXTS[document].splitlines():
        cells = [cell.strip().replace("\0", "|") for cell in line.replace("\\|", "\0").strip("|").split("|")]
        if not line.startswith("|"):
            inside = False
        elif inside and not set(line) <= set("|- "):
            yield cells
        elif cells[0] == first:
            inside = True


def quoted(text: str) -> set[str]:
    """Everything that stands in code marks."""
    return set(re.findall(r"`([^`\n]+)`", text))


def plain(text: str) -> str:
    """Text without its code marks."""
    return text.replace("`", "")


# --- architecture ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("folder", ["hengd", "hengd/http", "hengd/rules", "hengectl", "agent/henge_agent"])
def test_every_module_of_the_programs_stands_in_the_architecture(folder: str) -> None:
    named = quoted(TEXTS["architecture.md"]) | {"__init__", "__main__"}
    modules = {path.stem for path in (TOP / folder).glob("*.py")}

    assert {module for module in modules if not module.startswith("schema_")} <= named


def test_every_module_of_the_ground_stands_in_the_picture_of_the_architecture() -> None:
    picture = TEXTS["architecture.md"].split("```")[1].split("henge_protocol: what all must agree on")[1]
    modules = {path.stem for path in (TOP / "henge_protocol").glob("*.py")} - {"__init__"}

    assert modules == set(re.findall(r"[a-z]+(?!\w*:)\b", picture.replace("touches the world:", "")))


def test_decisions_that_code_and_tests_name_are_there() -> None:
    files = [path for folder in ("hengd", "hengectl", "henge_protocol", "agent", "micropython", "tests")
             for path in (TOP / folder).rglob("*.py")]  # fmt: skip
    named = {one for path in files for one in re.findall(r"docs/decisions/(\d{4})", path.read_text("utf-8"))}

    assert "0001" in named
    assert named <= {path.name[:4] for path in (DOCS / "decisions").glob("*.md")}


def test_what_the_walk_of_a_change_names_is_in_the_code() -> None:
    folders = ("hengd", "agent", "hengectl")
    sources = [path.read_text("utf-8") for folder in folders for path in (TOP / folder).rglob("*.py")]
    text = TEXTS["architecture.md"]
    named = re.findall(r"`([A-Z]\w+)\.(\w+)`", text)

    assert {("Aftermath", "follow"), ("DeviceLink", "look")} <= set(named)
    for owner, member in named:
        [source] = [one for one in sources if f"class {owner}:" in one or f"class {owner}(" in one]
        assert f"def {member}(" in source, f"{owner}.{member}"


# --- settings ---------------------------------------------------------------------------------------------

SETTING_ROWS = {plain(row[0]): row for row in rows("settings.md", "key")}


def test_settings_are_listed_in_their_order_and_no_others() -> None:
    assert list(SETTING_ROWS) == [setting.key for setting in SETTINGS]


@pytest.mark.parametrize("setting", SETTINGS, ids=lambda setting: setting.key)
def test_a_setting_is_listed_with_default_variable_meaning_and_reason(setting: Setting) -> None:
    _, default, variable, meaning, why = SETTING_ROWS[setting.key]

    assert (plain(default), plain(variable), meaning) == (toml(setting.default), setting.variable, setting.meaning)
    assert len(why) > 10


def test_the_sample_settings_in_the_document_are_good(tmp_path: Path) -> None:
    sample = TEXTS["settings.md"].partition("```toml\n")[2].partition("```")[0]
    (tmp_path / "hengd.toml").write_text(sample, "utf-8")

    assert load_settings(files=[tmp_path / "hengd.toml"])["store.keep_for"] == "730d"


# --- HTTP ---------------------------------------------------------------------------------------------------


async def test_every_route_is_documented_with_who_may_call_it(daemon: Service) -> None:
    documented: dict[str, str] = {}
    for cells in rows("http-api.md", "route"):
        documented |= {route: cells[1].partition(",")[0] for route in re.findall(r"`([A-Z]+ /[^`]*)`", cells[0])}
    served = {f"{route.method} {route.path}": route.auth.value.partition(",")[0] for route in daemon.app.routes}
    served[f"GET {head.STREAM_PATH}"] = "device"  # a WebSocket, answered before there are routes

    assert documented == served


def test_every_act_of_the_audit_is_documented() -> None:
    assert set(audit.ACTS) <= quoted(TEXTS["http-api.md"])


def test_every_type_of_event_is_documented() -> None:
    assert set(events.TYPES) <= quoted(TEXTS["http-api.md"])
    assert f"(the last {events.KEPT})" in TEXTS["http-api.md"]


# --- wire, errors -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", MESSAGES, ids=lambda kind: kind.type)
def test_messages_and_their_fields_are_documented(kind: type[wire.Message]) -> None:
    known = quoted(TEXTS["protocol.md"])

    assert kind.type in known
    assert {field.name for field in fields(kind)} - {"document"} <= known


@pytest.mark.parametrize("code", CODES)
def test_every_error_code_is_documented(code: str) -> None:
    assert f"| `{code}` |" in TEXTS["errors.md"]


@pytest.mark.parametrize("name", [name for name in vars(session) if name.startswith("CLOSE_")])
def test_every_close_code_is_documented(name: str) -> None:
    assert any(str(getattr(session, name)) in row[0] for row in rows("protocol.md", "code"))


def test_codes_that_documents_name_exist() -> None:
    """``snake_case`` after a status or before the word is a code of ours."""
    named = {code for text in TEXTS.values() for code in re.findall(r"\b4\d\d `?([a-z]+_[a-z_]+)`", text)}

    assert named
    assert named <= set(CODES)


# --- commands -----------------------------------------------------------------------------------------------


def commands(group: click.Group, ctx: click.Context, path: str = "") -> Iterator[tuple[str, click.Command]]:
    for name in group.list_commands(ctx):
        command = group.get_command(ctx, name)
        assert command is not None
        if isinstance(command, click.Group):
            yield from commands(command, click.Context(command, parent=ctx, info_name=name), f"{path}{name} ")
        else:
            yield f"{path}{name}", command


def all_commands(program: click.Group) -> dict[str, click.Command]:
    return dict(commands(program, click.Context(program)))


def flags_of(command: click.Command) -> set[str]:
    options = [param for param in command.params if isinstance(param, click.Option) and not param.hidden]
    return {max(option.opts, key=len) for option in options}


@pytest.mark.parametrize("name", sorted(all_commands(hengectl)))
def test_every_command_of_hengectl_is_documented(name: str) -> None:
    assert any(plain(row[0]).startswith(name) for row in rows("hengectl.md", "command"))


def test_hengectl_has_every_command_that_its_page_lists() -> None:
    listed = [plain(row[0]) for row in rows("hengectl.md", "command")]

    assert all(any(line.startswith(name) for name in all_commands(hengectl)) for line in listed)


@pytest.mark.parametrize("name", sorted(all_commands(cli)))
def test_every_command_of_hengd_is_documented(name: str) -> None:
    assert any(f"hengd {name}" in plain(row[0]) for row in rows("operations.md", "command"))


def test_every_flag_of_hengd_is_documented() -> None:
    listed = {plain(row[0]).split()[0] for row in rows("settings.md", "flag")}

    assert listed == flags_of(all_commands(cli)["run"])


def test_every_command_and_flag_of_the_agent_is_documented() -> None:
    text = (TOP / "agent" / "README.md").read_text("utf-8")
    flags = {flag for command in all_commands(agent_cli).values() for flag in flags_of(command)} - {"--help", "--debug"}

    assert [name for name in all_commands(agent_cli) if f"`henge-agent {name}" not in text] == []
    assert [flag for flag in sorted(flags) if flag not in text] == []


# --- operations ---------------------------------------------------------------------------------------------


def logged_events() -> set[str]:
    """Values of ``event`` that the daemon's source writes into log lines."""
    found = set()
    for file in (TOP / "hengd").rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text("utf-8"))):
            if isinstance(node, ast.Dict):
                pairs = zip(node.keys, node.values, strict=True)
                values = [value for key, value in pairs if isinstance(key, ast.Constant) and key.value == "event"]
                found |= {value.value for value in values if isinstance(value, ast.Constant)}
            if isinstance(node, ast.Call) and getattr(node.func, "attr", "") == "_fields":
                found |= {value.value for value in node.args if isinstance(value, ast.Constant)}
    return {str(event) for event in found}


def test_every_event_of_the_log_is_documented_and_no_other() -> None:
    assert {plain(row[0]) for row in rows("operations.md", "event")} == logged_events()


async def test_every_metric_is_documented_and_no_other(daemon: Service) -> None:
    async with daemon.admin() as admin:
        text = (await admin.call("GET", "/metrics")).body.decode()
    listed = {name for row in rows("operations.md", "metric") for name in quoted(row[0])}

    assert {name.partition("{")[0] for name in listed} == set(re.findall(r"^# TYPE (\w+)", text, re.MULTILINE))


def test_every_exit_code_of_the_daemon_is_documented() -> None:
    listed = {plain(row[0]): row[1] for row in rows("operations.md", "code")}

    assert {str(code) for code in EXIT_CODES.values()} <= set(listed)
    assert [error for error, code in EXIT_CODES.items() if f"`{error}`" not in listed[str(code)]] == []


# --- limits -------------------------------------------------------------------------------------------------

GATE = GateLimits()
LINK = stream.LIMITS
JSON = strictjson.LIMITS


@pytest.mark.parametrize(
    "row",
    [
        f"nesting | {JSON.max_depth} levels |",
        f"values in all | {JSON.max_nodes:,} |",
        f"keys of an object | {JSON.max_keys:,} |",
        f"key | {JSON.max_key_bytes} bytes |",
        f"text | {JSON.max_string_bytes:,} bytes |",
        f"integers | -{strictjson.MAX_INTEGER} to {strictjson.MAX_INTEGER} |",
        f"open connections | {GATE.max_connections}, *setting*",
        f"open connections of one address | {GATE.per_address}, *setting*",
        f"TLS handshakes at a time | {GATE.handshakes}, *setting*",
        f"TLS handshakes of one address | {GATE.handshakes_per_address}, *setting*",
        f"TLS handshake | {GATE.handshake_s:g} s; {GATE.hurried_handshake_s:g} s while others wait for their turn, "
        f"{GATE.silence_s:g} s for who",
        f"request head | {GATE.max_head_bytes:,} bytes, {head.MAX_FIELDS} fields, "
        f"{head.MAX_LINE_BYTES:,} bytes each line |",
        f"request head | {GATE.head_s:g} s from connect",
        f"idle connection | {GATE.idle_s:g} s |",
        f"requests on one connection | {GATE.max_requests_per_connection:,} |",
        f"last answer | {GATE.linger_s:g} s",
        "requests of one operator over TLS | {:g} a second, {} at once;".format(*edge.RATES["admin"]),
        "requests of one device | {:g} a second, {} at once |".format(*edge.RATES["device"]),
        f"body | {parse.MAX_BODY_BYTES // 1024**2} MiB |",
        f"body | {parse.BODY_TIMEOUT_S:g} s |",
        f"body of enrolment routes | {enrol.MAX_ENROL_BYTES // 1024} KiB |",
        f"long-poll and event wait | {parse.MAX_WAIT_S} s |",
        f"message from a device | {LINK.max_message_bytes // 1024} KiB | close 1009 |",
        f"header line | {wire.MAX_HEADER_BYTES // 1024} KiB |",
        f"frames from a device | {LINK.frames_per_s:g} a second, {LINK.burst} at once |",
        f"hello | {session.HELLO_TIMEOUT_S:g} s | close {session.CLOSE_HELLO_TIMEOUT} |",
        f"hellos of one device | {reports.HELLOS_A_MINUTE} a minute are written at once | only the newest is written, "
        f"after {reports.LATE_S:g} s |",
        f"useless frames | {session.MAX_FAULTS} within {session.FAULT_WINDOW_S:g} s | close {session.CLOSE_POLICY} |",
        f"silence | pinged after {LINK.ping_after_s:g} s, {LINK.reply_s:g} s to answer |",
        f"what was sent stays unread | {LINK.stuck_s:g} s |",
        f"facts of a device | {wire.MAX_FACTS} entries, {wire.MAX_FACT_CHARS} characters each |",
        f"errors of a report | {wire.MAX_ERRORS}, {header.MAX_TEXT_CHARS} characters each |",
        f"the older one: close {session.CLOSE_REPLACED} |",
        f"name | {model.MAX_NAME_CHARS} characters",
        f"labels of an object | {selector.MAX_LABELS};",
        f"annotations of an object | {objects.MAX_ANNOTATION_CHARS:,} characters",
        f"selector | {selector.MAX_SELECTOR_CHARS:,} characters",
        f"priority of a group | 0 to {objects.MAX_PRIORITY} |",
        f"document | {model.MAX_DOCUMENT_BYTES:,} bytes; a schema may say 64 to {objects.MAX_SPEC_DOCUMENT_BYTES:,} |",
        f"objects in one apply | {configs.MAX_OBJECTS:,} ",
        f"(`apply` may hold {parse.APPLY_LIMITS.max_nodes:,} values in all, two levels deeper)",
        f"devices asked by one check (`hengectl check`) | {candidates.MAX_CANDIDATES} |",
        f"layers of one device | {rendering.MAX_LAYERS}: the schema's defaults, {rendering.MAX_LAYERS - 2} groups",
        f"overrides of one device end, its groups' included | {rendering.MAX_ENDS};",
        f"a secret | {secrets.MAX_SECRET_BYTES:,} bytes as JSON, its body {MAX_SECRET_BODY_BYTES // 1024} KiB |",
        f"overrides of one group or device | {overrides.MAX_OVERRIDES}, each for at most "
        f"{overrides.MAX_FOR_S // 86400} days |",
        f"other documents | {breadth.MOST_PART * 100:g} % of a fleet of {breadth.SMALL_FLEET} and more",
        f"pairs of subschemas compared when a schema changes | {schema_compare.MAX_PAIRS:,} |",
        f"message of a change | {configs.MAX_MESSAGE_CHARS:,} characters |",
        f"problems listed in an answer | {schema_messages.MAX_PROBLEMS} |",
        f"revisions in one answer | {model.MAX_LISTED:,} |",
        f"audit records in one answer | {model.MAX_LISTED:,} |",
        f"events kept in memory | {events.KEPT:,} |",
        f"size | {model.MAX_SCHEMA_BYTES:,} bytes |",
        f"nesting of subschemas | {schema_budget.MAX_DEPTH} levels |",
        f"subschemas | {schema_budget.MAX_SUBSCHEMAS:,} |",
        f"{schema_budget.MAX_EXPANDED:,} each, {schema_budget.MAX_EXPANDED_TOGETHER:,} in all |",
        f"references in a row | {schema_budget.MAX_REFERENCE_CHAIN} |",
        f"`oneOf`, `prefixItems` | {schema_budget.MAX_BRANCHES} |",
        f"patterns | {schema_budget.MAX_PATTERNS}; {schema_patterns.MAX_PATTERN_CHARACTERS} characters, "
        f"repetitions up to {schema_patterns.MAX_REPETITION:,}, "
        f"{schema_patterns.MAX_AUTOMATON_BYTES // 1024} KiB compiled |",
        f"values of an `enum` | {schema_budget.MAX_ENUM:,} |",
        f"examples | {schema_budget.MAX_EXAMPLES} |",
        f"`$comment` | {schema_budget.MAX_TEXT_BYTES:,} bytes |",
        f"needs `maxItems` of at most {schema_budget.MAX_UNIQUE_ITEMS} |",
        f"wrong codes typed by an operator | {joins.MAX_WRONG_CODES} |",
        f"`join.max_pending`; {joins.MAX_PENDING_PER_ADDRESS} of one address |",
        f"waiting time of a join request | {joins.REQUEST_LIFETIME_S:g} s |",
        f"join window | {joins.MAX_WINDOW_S:,} s |",
        f"life of a token | {tokens.MAX_TTL_S:,} s",
        f"uses of a token | {tokens.MAX_USES:,} |",
        f"tokens | {tokens.MAX_TOKENS:,} |",
        f"renewals of one identity | {authority.MAX_RENEWALS_PER_HOUR} an hour |",
        f"clock behind the store's records | {timekeeping.CLOCK_SLACK_S:g} s |",
        f"rescue window | {rescue_window.MAX_WINDOW_S:,} s ",
        f"schema that is handed in | {model.MAX_RESCUED_SCHEMA_BYTES:,} bytes |",
        f"devices that have handed in what they run | {rescue.MAX_REQUESTS:,}, ",
        f"different schemas that were handed in | {rescue.MAX_SCHEMAS} |",
        f"of one address | {rescue.PER_S:g} a second, {rescue.AT_ONCE} at once |",
        f"devices taken at once | {taking.MAX_TAKEN:,} |",
        f"doubles by itself up to {room.MAX_MAP_BYTES // 1024**3} GiB |",
        f"free disk | {room.FREE_RESERVE_BYTES // 1024**2} MiB |",
        f"space set aside for revocations | {room.BALLAST_BYTES // 1024**2} MiB |",
        f"operations in one commit | {groupcommit.MAX_BATCH} |",
    ],
)
def test_the_table_of_limits_has_the_numbers_of_the_code(row: str) -> None:
    assert row in TEXTS["limits.md"]


def test_words_for_numbers_in_the_table_of_limits() -> None:
    assert Decimal("1e-9") == schema_budget.MIN_MULTIPLE, "nine decimal places"
    assert limits.WINDOW_S == 60.0, "a minute"
    assert "`multipleOf` | nine decimal places |" in TEXTS["limits.md"]
    assert "wrong tokens | 5 a minute of one address;" in TEXTS["limits.md"]


def test_codes_in_the_table_of_limits_exist() -> None:
    named = {word for row in rows("limits.md", "what") for word in quoted(row[2]) if "." not in word}

    assert named <= set(CODES)


# --- schemas ------------------------------------------------------------------------------------------------


def test_every_keyword_and_format_is_documented() -> None:
    listed = {word for row in rows("schemas.md", "") for word in row[1].replace("`", " ").split()}

    assert listed == schema_keywords.SUPPORTED
    assert {name for name in schema_keywords.FORMATS if f"`{name}`" not in TEXTS["schemas.md"]} == set()


def test_the_sample_schema_in_the_document_is_accepted() -> None:
    sample = yaml.safe_load(TEXTS["schemas.md"].partition("```yaml\n")[2].partition("```")[0])

    schemas.check_schema(objects.parse_manifest(sample).spec["schema"])


# --- links --------------------------------------------------------------------------------------------------


def anchors(path: Path) -> set[str]:
    """The anchors that headings make, as code hosts make them."""
    headings = re.findall(r"^#+ +(.+)$", path.read_text("utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower().replace("`", "")).strip().replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("path", LINKED, ids=lambda path: str(path.relative_to(TOP)))
def test_relative_links_lead_somewhere(path: Path) -> None:
    text = re.sub(r"```.*?```", "", path.read_text("utf-8"), flags=re.DOTALL)
    targets = re.findall(r"\]\(([^)\s]+)\)", text) + re.findall(r"^\[[^\]]+\]: *(\S+)", text, re.MULTILINE)
    broken = [target for target in targets if not resolves(path, target)]

    assert broken == []


def resolves(path: Path, target: str) -> bool:
    if re.match(r"[a-z]+:", target):
        return True
    name, _, anchor = urllib.parse.unquote(target).partition("#")
    found = (path.parent / name) if name else path
    return found.exists() and (not anchor or anchor in anchors(found))


@pytest.mark.parametrize("path", LINKED, ids=lambda path: str(path.relative_to(TOP)))
def test_files_of_ours_that_are_named_exist(path: Path) -> None:
    """``docs/x.md``, ``hengd/y.py`` in code marks: a file that was moved is still somewhere else."""
    tops = ("docs/", "hengd/", "hengectl/", "henge_protocol/", "agent/", "examples/", "tests/", "contrib/")
    text = re.sub(r"```.*?```", "", path.read_text("utf-8"), flags=re.DOTALL)
    named = {word for word in quoted(text) if word.startswith(tops) and re.fullmatch(r"[\w./-]+", word)}

    assert [name for name in sorted(named) if "NNNN" not in name and not (TOP / name).exists()] == []


# --- vectors ------------------------------------------------------------------------------------------------


def test_every_vector_file_is_described() -> None:
    described = quoted((TOP / "tests" / "vectors" / "README.md").read_text("utf-8"))

    assert {path.name for path in (TOP / "tests" / "vectors").glob("*.json")} <= described


@pytest.mark.parametrize("path", sorted((TOP / "tests" / "vectors").glob("*.json")), ids=lambda path: path.name)
def test_a_vector_file_says_what_it_is_about(path: Path) -> None:
    content: dict[str, Any] = json.loads(path.read_text("utf-8"))

    assert len(content["about"]) > 20
