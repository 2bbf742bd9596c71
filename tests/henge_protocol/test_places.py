from __future__ import annotations

from pathlib import Path

import pytest

from henge_protocol import places
from henge_protocol.errors import Invalid

HOME = {"HOME": "/home/ada"}


def test_the_agents_settings_lie_beside_the_daemons() -> None:
    assert places.agent_config_file({}, 0) == Path("/etc/henge/agent.toml")
    assert places.agent_config_file({"HOME": "/home/me"}, 1000) == Path("/home/me/.config/henge/agent.toml")
    assert places.agent_config_file({}, 1000) is None


def test_a_user_gets_the_xdg_folders() -> None:
    assert places.config_dir(HOME, 1000) == Path("/home/ada/.config/henge")
    assert places.state_dir(HOME, 1000) == Path("/home/ada/.local/state/henge")
    assert places.agent_state_dir(HOME, 1000) == Path("/home/ada/.local/state/henge-agent")
    assert places.contexts_dir(HOME) == Path("/home/ada/.config/henge")


def test_root_gets_the_system_folders_and_keeps_own_contexts() -> None:
    assert places.config_dir({"HOME": "/root"}, 0) == Path("/etc/henge")
    assert places.state_dir({}, 0) == Path("/var/lib/henge")
    assert places.admin_socket({}, 0) == Path("/run/henge/admin.sock")
    assert places.contexts_dir({"HOME": "/root"}) == Path("/root/.config/henge")


def test_systemd_decides_for_a_service() -> None:
    environ = {"STATE_DIRECTORY": "/var/lib/a:/var/lib/b", "RUNTIME_DIRECTORY": "/run/a"}

    assert places.state_dir(environ, 999) == Path("/var/lib/a")
    assert places.admin_socket(environ, 999) == Path("/run/a/admin.sock")


def test_without_a_runtime_folder_the_socket_lies_in_the_state_folder() -> None:
    assert places.admin_socket(HOME, 1000) == Path("/home/ada/.local/state/henge/admin.sock")
    assert places.admin_sockets(HOME)[1] == places.admin_socket(HOME, 1000)


def test_the_command_line_looks_where_daemons_make_sockets() -> None:
    environ = {**HOME, "XDG_RUNTIME_DIR": "/run/user/1000"}

    assert places.admin_sockets(environ) == (Path("/run/henge/admin.sock"), Path("/run/user/1000/henge/admin.sock"))
    assert places.admin_sockets({}) == (Path("/run/henge/admin.sock"),)


def test_relative_folders_are_ignored() -> None:
    environ = {**HOME, "XDG_CONFIG_HOME": "conf", "XDG_RUNTIME_DIR": "run", "STATE_DIRECTORY": "state"}

    assert places.config_dir(environ, 1000) == Path("/home/ada/.config/henge")
    assert places.state_dir(environ, 1000) == Path("/home/ada/.local/state/henge")


def test_no_home_is_a_clear_refusal() -> None:
    with pytest.raises(Invalid) as refusal:
        places.state_dir({}, 1000)

    assert refusal.value.code == "bad_setting"
    assert "HOME" in refusal.value.message
