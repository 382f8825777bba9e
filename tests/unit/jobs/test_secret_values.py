"""What must not be submitted is found, and never repeated."""

from __future__ import annotations

import pytest

from dpscale.data.types import InputError
from jobs.secret_values import refuse_passwords, refuse_secret_values, secret_values

PLANTED = "pl4nted-v4lue"


def test_secrets_are_told_by_the_names_of_variables():
    environment = {
        "AWS_SECRET_ACCESS_KEY": PLANTED, "MLFLOW_TRACKING_PASSWORD": PLANTED, "RAY_AUTH_TOKEN": PLANTED, "DB_PASSWD": f" {PLANTED}\n",
        "RAY_AUTH_TOKEN_PATH": "/home/ann/token", "GOOGLE_APPLICATION_CREDENTIALS": "/home/ann/gcp.json", "HOME": "/home/ann", "SHORT_KEY": "abc",
    }  # fmt: skip
    assert secret_values(environment) == dict.fromkeys(["AWS_SECRET_ACCESS_KEY", "MLFLOW_TRACKING_PASSWORD", "RAY_AUTH_TOKEN", "DB_PASSWD"], PLANTED)


def test_a_value_is_refused_where_it_stands_and_not_repeated():
    refuse_secret_values("run.toml", b"nothing", {"MY_KEY": PLANTED})
    with pytest.raises(InputError, match=r"run.toml holds the value of \$MY_KEY") as raised:
        refuse_secret_values("run.toml", f"uri = '{PLANTED}'".encode(), {"MY_KEY": PLANTED})
    assert PLANTED not in str(raised.value)


@pytest.mark.parametrize(
    "url",
    [
        f"postgresql://mlflow:{PLANTED}@db/mlflow",
        f"postgresql+psycopg2://mlflow:a/{PLANTED}@db:5432/mlflow",
        f"https://:{PLANTED}@mlflow.example",
        f"s3://bucket/prefix?region=x&secret_key={PLANTED}",
        f"https://account.blob.core.windows.net/c?sv=1&sig={PLANTED}",
        f"https://mlflow.example/?access_token={PLANTED}",
    ],
)
def test_urls_with_passwords_and_keys_are_refused(url: str):
    with pytest.raises(InputError, match=r"the settings: holds a URL with a password or a key") as raised:
        refuse_passwords("the settings", f'{{"tracking": {{"uri": "{url}"}}}}')
    assert PLANTED not in str(raised.value)


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://mlflow@db/mlflow", "http://127.0.0.1:5000", "s3://bucket/prefix?endpoint_override=127.0.0.1:9000&scheme=http",
        "gs://anonymous@bucket/prefix", "abfs://container@account.dfs.core.windows.net/p", "sqlite:////shared/mlflow.db",
        "postgresql://mlflow:${MLFLOW_DB_PASSWORD}@db/mlflow", "${MLFLOW_TRACKING_URI}",
    ],
)  # fmt: skip
def test_urls_without_are_sent(url: str):
    text = f'{{"tracking": {{"uri": "{url}", "experiment": "a:b@c"}}}}'
    refuse_passwords("the settings", text)
    if "://" not in url:
        return
    scheme, rest = url.split("://")
    with pytest.raises(InputError, match="the settings: holds a URL with a password"):
        refuse_passwords("the settings", text.replace(url, f"{scheme}://somebody:hunter22@{rest.rpartition('@')[2]}"))


def test_a_password_beside_a_reference_is_still_one():
    for url in (f"postgresql://mlflow:{PLANTED}${{MORE}}@db/mlflow", f"s3://bucket?secret_key=${{KEY}}&token={PLANTED}"):
        with pytest.raises(InputError, match="the settings: holds a URL with a password"):
            refuse_passwords("the settings", url)
