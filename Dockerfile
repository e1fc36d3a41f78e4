# One image for the service, its migration and MLflow.
# torch comes with CUDA; `--build-arg TORCH_INDEX=URL` names an index that holds the smaller one for CPUs.
FROM python:3.11-slim-bookworm

ARG TORCH_INDEX=
ENV PYTHONUNBUFFERED=1 PIP_NO_CACHE_DIR=1 RAY_USAGE_STATS_ENABLED=0

RUN apt-get update && apt-get install -y --no-install-recommends curl tini && rm -rf /var/lib/apt/lists/* \
    && useradd --create-home --uid 1000 spectune && mkdir -p /data/mlflow && chown -R spectune /data

WORKDIR /app
COPY pyproject.toml constraints.txt README.md LICENSE ./
COPY optimizers optimizers
COPY search_spaces search_spaces
COPY trainers trainers
COPY service service
COPY spectune spectune
COPY examples examples
RUN if [ -n "$TORCH_INDEX" ]; then pip install torch --constraint constraints.txt \
        --index-url "$TORCH_INDEX"; fi \
    && pip install --constraint constraints.txt '.[service,postgres]'

USER spectune
ENTRYPOINT ["tini", "--"]
CMD ["spectune", "serve", "--data-dir", "/data/campaigns", "--host", "0.0.0.0"]
