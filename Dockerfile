# The kiosk's service for amd64 and arm64:
#   docker build -t delf-edge .
#   docker run -p 127.0.0.1:8000:8000 -v places:/data -e DELF_EDGE_TOKEN=... delf-edge
#
# Versions and hashes of what is installed are those of requirements-web.lock. The compiler is there for hnswlib, which
# has no wheels; the second stage has none.
FROM node:20-bookworm-slim AS page
WORKDIR /src/web-sdk
COPY web-sdk .
RUN npm ci && npm run build && npm run visit

FROM python:3.12-slim-bookworm AS build
# hadolint ignore=DL3008
RUN apt-get update && apt-get install -y --no-install-recommends g++ && rm -rf /var/lib/apt/lists/*
WORKDIR /src
COPY requirements-web.lock ./
RUN python -m venv /opt/delf-edge \
    && /opt/delf-edge/bin/pip install --no-cache-dir --require-hashes --no-deps -r requirements-web.lock
COPY pyproject.toml README.md LICENSE ./
COPY delf_edge delf_edge
COPY converters converters
COPY assets assets
COPY --from=page /src/web-sdk/dist/visit delf_edge/web/visit
RUN /opt/delf-edge/bin/pip install --no-cache-dir --no-deps .

FROM python:3.12-slim-bookworm
RUN useradd --system --uid 10001 --create-home --home-dir /data delf-edge
COPY --from=build /opt/delf-edge /opt/delf-edge
USER 10001
WORKDIR /data
VOLUME /data
EXPOSE 8000
# Listening on all addresses of the container; everything but the page itself then needs DELF_EDGE_TOKEN. Open the page once
# with /#token=... after its address, or add --open-reading where everybody who can reach it may ask.
ENTRYPOINT ["/opt/delf-edge/bin/delf-edge"]
CMD ["serve", "/data/places.db", "--host", "0.0.0.0", "--new", "--kiosk"]
HEALTHCHECK --interval=30s --timeout=5s --start-period=30s \
    CMD ["/opt/delf-edge/bin/python", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:8000/healthz')"]
