# One image for every service: `docker run IMAGE node`, `topics create`, `replay` ...
FROM python:3.11-slim AS build
WORKDIR /build
COPY constraints.txt ./
RUN pip install --no-cache-dir --disable-pip-version-check -c constraints.txt uv \
    && python -m venv --without-pip /opt/everlearn
COPY pyproject.toml README.md LICENSE ./
COPY learners learners
COPY streams streams
COPY serving serving
RUN uv pip install --no-cache --python /opt/everlearn/bin/python -c constraints.txt -b constraints.txt .

FROM python:3.11-slim
RUN useradd --system --uid 10001 --home-dir /var/lib/everlearn --create-home everlearn \
    && install -d -o everlearn -g everlearn /var/lib/everlearn/state /var/lib/everlearn/snapshots /var/cache/everlearn
COPY --from=build /opt/everlearn /opt/everlearn
ENV PATH=/opt/everlearn/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    EVERLEARN_CACHE=/var/cache/everlearn \
    EVERLEARN_HOST=0.0.0.0 \
    EVERLEARN_PORT=8080 \
    EVERLEARN_STATE_DIR=/var/lib/everlearn/state \
    EVERLEARN_SNAPSHOT_DIR=/var/lib/everlearn/snapshots
USER everlearn
WORKDIR /var/lib/everlearn
RUN python -m streams.warmup
VOLUME /var/lib/everlearn/state /var/lib/everlearn/snapshots
EXPOSE 8080
HEALTHCHECK --interval=10s --timeout=5s --start-period=60s --retries=3 \
    CMD ["python", "-c", "import urllib.request as web; web.urlopen('http://127.0.0.1:8080/health/ready', timeout=4)"]
ENTRYPOINT ["everlearn"]
CMD ["node"]
