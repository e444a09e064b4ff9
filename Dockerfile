# One image for every part of HotSwap: the command says which (docs/deploy.md).
#   api: python -m api (the default) · worker: python -m worker · node: python -m hotswap.node
#   migrations: python -m migrations
# Packages come from the hashed locks, by pip's own configuration: pass an index to the build as a BuildKit secret
# (--secret id=pip,src=pip.conf), never in this file.
#
# The base is pinned by version. To pin it by digest as well, resolve the tag once and write the digest behind it:
#   docker buildx imagetools inspect python:3.13.16-slim-trixie --format '{{.Manifest.Digest}}'
FROM python:3.13.16-slim-trixie AS build

ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1
WORKDIR /build
COPY requirements/production.lock requirements/build.lock requirements/
# Two environments: what builds the package stays behind.
RUN --mount=type=secret,id=pip,target=/etc/pip.conf \
    python -m venv /opt/hotswap \
    && /opt/hotswap/bin/python -m pip install --require-hashes -r requirements/production.lock \
    && python -m venv /opt/build \
    && /opt/build/bin/python -m pip install --require-hashes -r requirements/build.lock
COPY pyproject.toml README.md LICENSE worker.py ./
COPY activities activities
COPY api api
COPY hotswap hotswap
COPY hotswap_plugin hotswap_plugin
COPY migrations migrations
COPY workflows workflows
RUN /opt/build/bin/python -m pip wheel --no-deps --no-build-isolation --no-index --wheel-dir /build/wheels . \
    && /opt/hotswap/bin/python -m pip install --no-deps --no-index /build/wheels/*.whl \
    && /opt/hotswap/bin/python -m pip uninstall --yes pip


FROM python:3.13.16-slim-trixie

# tini: a node's plugin hosts end as orphans now and then, and process 1 must reap them and pass signals on.
# Any build of the one upstream version: Debian replaces builds, and an exact one could not be installed a month later.
RUN apt-get update \
    && apt-get install --yes --no-install-recommends "tini=0.19.0-*" \
    && rm -rf /var/lib/apt/lists/* \
    && groupadd --system --gid 10001 hotswap \
    && useradd --system --uid 10001 --gid 10001 --no-create-home --home-dir /nonexistent --shell /usr/sbin/nologin hotswap \
    && install --directory --owner=10001 --group=10001 --mode=0750 /var/lib/hotswap
COPY --from=build /opt/hotswap /opt/hotswap

# Listening on every interface is right inside a container; which of them the world sees is the orchestrator's to say.
# The root may be read-only: writable are /var/lib/hotswap (a volume) and /tmp (a tmpfs).
ENV PATH=/opt/hotswap/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    HOTSWAP_API__HOST=0.0.0.0 \
    HOTSWAP_API__PORT=8080 \
    HOTSWAP_NODE__HOST=0.0.0.0 \
    HOTSWAP_NODE__ROUTER_PORT=8090 \
    HOTSWAP_NODE__ADMIN_PORT=8091 \
    HOTSWAP_NODE__DATA_DIR=/var/lib/hotswap/node \
    HOTSWAP_WORK_DIR=/var/lib/hotswap/work \
    HOTSWAP_READY_FILE=/tmp/hotswap-ready

WORKDIR /var/lib/hotswap
USER 10001:10001
VOLUME ["/var/lib/hotswap"]
EXPOSE 8080 8090 8091 9464
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=5s --start-period=60s --retries=3 CMD ["python", "-m", "hotswap.healthcheck"]
ENTRYPOINT ["tini", "--"]
CMD ["python", "-m", "api"]
