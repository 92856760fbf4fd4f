# A raftkv server. Two stages: the first builds the wheel and its dependencies into a virtual environment, the
# second takes that environment and nothing else (no pip cache, no sources, no build tools).
#
#   docker build -t raftkv .
#   docker run --rm raftkv --help

FROM python:3.13-slim AS build
WORKDIR /src
# The environment has no pip of its own (the image's pip installs into it): 10 MB less to ship and to patch.
RUN python -m venv --without-pip /opt/raftkv
COPY pyproject.toml README.md LICENSE ./
COPY raftkv ./raftkv
RUN pip --python /opt/raftkv/bin/python install --no-cache-dir --no-compile . \
 && /opt/raftkv/bin/python -m compileall -q /opt/raftkv/lib

FROM python:3.13-slim
# A fixed id, so that a bind-mounted data directory can be given to it: chown 10001:10001 DIR.
RUN groupadd --gid 10001 raftkv \
 && useradd --uid 10001 --gid raftkv --no-create-home --home-dir /data --shell /usr/sbin/nologin raftkv \
 && install -d -o raftkv -g raftkv -m 0750 /data
COPY --from=build /opt/raftkv /opt/raftkv

ENV PATH=/opt/raftkv/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    RAFTKV_DATA_DIR=/data \
    RAFTKV_LISTEN=0.0.0.0:8000 \
    RAFTKV_PEER_LISTEN=0.0.0.0:9000 \
    RAFTKV_ENDPOINTS=http://127.0.0.1:8000

USER raftkv
VOLUME /data
# 8000: clients (REST). 9000: peers; it is for the cluster's own network, never for the outside.
EXPOSE 8000 9000
STOPSIGNAL SIGTERM
# It starts a Python each time, about 0.15 s of a core: not more often than this.
HEALTHCHECK --interval=15s --timeout=5s --start-period=20s --retries=3 CMD ["raftkv", "health"]
ENTRYPOINT ["raftkv"]
CMD ["serve"]
