# syntax=docker/dockerfile:1
# The COPY and pip lines of the build stages are run by .ci/run without Docker: keep each on one line.
ARG PYTHON=python:3.13-slim-trixie

FROM ${PYTHON} AS build
RUN python -m venv /opt/promptyard
ENV PATH=/opt/promptyard/bin:$PATH
WORKDIR /src
COPY requirements.lock ./
RUN pip install --no-cache-dir --require-hashes -r requirements.lock
COPY pyproject.toml README.md LICENSE ./
COPY worker worker
COPY migrations migrations
RUN pip install --no-cache-dir --no-deps .

FROM build AS build-flower
COPY requirements-flower.lock ./
RUN pip install --no-cache-dir --require-hashes -r requirements-flower.lock

FROM ${PYTHON} AS base
LABEL org.opencontainers.image.title="Promptyard" \
      org.opencontainers.image.description="Run large offline batches of LLM prompts over many providers" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.source="https://github.com/promptyard/promptyard"
ENV PATH=/opt/promptyard/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1
RUN useradd --system --uid 10001 --create-home --home-dir /home/promptyard promptyard
WORKDIR /home/promptyard

FROM base AS flower
COPY --from=build-flower /opt/promptyard /opt/promptyard
USER 10001
EXPOSE 5555
ENTRYPOINT ["celery", "-A", "worker", "flower"]

# The last stage is what `docker build .` gives. It has no HEALTHCHECK: what is healthy differs between a worker,
# which docker-compose.yml asks, and a command that runs and ends.
FROM base AS promptyard
COPY --from=build /opt/promptyard /opt/promptyard
COPY docker/worker_alive.py /opt/promptyard/share/worker_alive.py
USER 10001
ENTRYPOINT ["promptyard"]
CMD ["--help"]
