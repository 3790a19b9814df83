import pytest

from runner.errors import ConfigError
from runner.settings import Secret, Settings


def test_secret_never_prints_itself():
    secret = Secret("canary")
    assert "canary" not in f"{secret} {secret!r} {secret!s} {[secret]}"
    assert secret.reveal() == "canary"


def test_secret_file_takes_precedence_and_must_be_private(tmp_path):
    path = tmp_path / "key"
    path.write_text(" from file \n")
    path.chmod(0o600)
    settings = Settings({"KLING_API_KEY": "from environment", "KLING_API_KEY_FILE": str(path)})
    assert settings.secret("KLING_API_KEY").reveal() == "from file"
    path.chmod(0o640)
    with pytest.raises(ConfigError, match="can be read by others"):
        settings.secret("KLING_API_KEY")
    systemd = Settings({"KLING_API_KEY_FILE": str(path), "CREDENTIALS_DIRECTORY": str(tmp_path)})
    assert systemd.secret("KLING_API_KEY").reveal() == "from file"


@pytest.mark.parametrize("what", ["missing", "directory"])
def test_unreadable_secret_file_is_named(tmp_path, what):
    path = tmp_path / "missing" if what == "missing" else tmp_path
    with pytest.raises(ConfigError, match="KLING_API_KEY_FILE"):
        Settings({"KLING_API_KEY_FILE": str(path)}).secret("KLING_API_KEY")


def test_empty_value_counts_as_unset():
    settings = Settings({"KLING_API_KEY": "  ", "KLING_BASE_URL": ""})
    assert settings.secret("KLING_API_KEY") is None
    assert settings.text("KLING_BASE_URL") is None


def test_home_is_read_from_the_environment(tmp_path):
    assert Settings({"RUNNER_HOME": str(tmp_path)}).home == tmp_path
