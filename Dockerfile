# Build: docker build -t sluice .    Run, and what the image expects: docs/deploy.md
ARG PYTHON=3.11
FROM python:${PYTHON}-slim-bookworm AS build
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
# Without pip of its own: what runs installs nothing.
RUN python -m venv --without-pip /opt/venv
COPY requirements.txt /tmp/
# Only what is named there with its hash, and only wheels: no code of a package runs here.
RUN pip --python /opt/venv/bin/python install --no-deps --require-hashes --only-binary :all: -r /tmp/requirements.txt
COPY . /app
# The file system it runs on may be read-only: bytecode is made here.
RUN /opt/venv/bin/python -m compileall -q -j 0 /opt/venv/lib /app

FROM python:${PYTHON}-slim-bookworm
LABEL org.opencontainers.image.title="Sluice" \
      org.opencontainers.image.description="A durable streaming service for language models" \
      org.opencontainers.image.licenses="MIT"
RUN groupadd --gid 10001 sluice \
    && useradd --uid 10001 --gid 10001 --home-dir /data --no-create-home --shell /usr/sbin/nologin sluice \
    && install --directory --owner=10001 --group=10001 --mode=0700 /data
COPY --from=build /opt/venv /opt/venv
COPY --from=build /app /app
ENV PATH=/opt/venv/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    HOME=/data \
    PORT=8000 \
    RUNNABLES=none \
    EVENTLOG_URL=sqlite:////data/streams.db \
    CHECKPOINTS_URL=sqlite:////data/checkpoints.db \
    SESSIONS_PATH=/data/agent_sessions.db
WORKDIR /app
USER 10001:10001
VOLUME /data
EXPOSE 8000
# Drains for DRAIN_SECONDS (18) and 5 more: give it 30 before it is killed.
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=5s --start-period=30s --retries=3 \
    CMD ["python", "-m", "streaming", "healthcheck"]
# The worker's sign of life is a file: in memory, so that no disk delays it and / can be read-only.
CMD ["gunicorn", "--worker-tmp-dir", "/dev/shm", "wsgi:app"]
