# syntax=docker/dockerfile:1
# MLflow's server alone, of the version that dpscale speaks to, with drivers for Postgres and S3: docs/mlflow_server.md.
FROM python:3.11-slim-bookworm
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 \
    PYTHONUNBUFFERED=1
COPY constraints.txt /tmp/constraints.txt
# hadolint ignore=DL3013
RUN --mount=type=secret,id=pip,target=/etc/pip.conf \
    python -m pip install --no-cache-dir -c /tmp/constraints.txt mlflow boto3 "psycopg[binary]" \
 && useradd --create-home --uid 1000 mlflow
USER 1000
WORKDIR /home/mlflow
EXPOSE 5000
CMD ["mlflow", "server", "--help"]
