# syntax=docker/dockerfile:1
# feedline as a small image: no shell, no root, and a read-only file system except for the checkpoint's volume.

FROM rust:1.95-slim-bookworm AS chef
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install --yes --no-install-recommends g++ libssl-dev make perl pkg-config zlib1g-dev \
    && rm -rf /var/lib/apt/lists/*
RUN cargo install --locked cargo-chef@0.1.78
# Kernels for 64-bit ARM have pages of 4, 16 or 64 KiB; the allocator supports page sizes up to the one that it is built for (2^16).
RUN [ "$(uname -m)" != aarch64 ] || echo 'env.JEMALLOC_SYS_WITH_LG_PAGE = "16"' >> "$CARGO_HOME/config.toml"
WORKDIR /build

# The list of dependencies: this layer changes only when they change.
FROM chef AS plan
COPY . .
RUN cargo chef prepare --recipe-path recipe.json

FROM chef AS build
COPY --from=plan /build/recipe.json recipe.json
RUN cargo chef cook --release --locked --bin feedline --recipe-path recipe.json
COPY . .
# `feedline --version` prints the revision; git is not available in this stage.
ARG REVISION=unknown
RUN FEEDLINE_REVISION="$REVISION" cargo build --release --locked --bin feedline \
    && mkdir -p /out/lib /out/var/lib/feedline \
    && cp target/release/feedline /out/feedline \
    # The base image has glibc, libgcc and OpenSSL, but not zlib.
    && cp --dereference "/usr/lib/$(uname -m)-linux-gnu/libz.so.1" /out/lib/

FROM gcr.io/distroless/cc-debian12:nonroot
ARG VERSION=0.1.0
ARG REVISION=unknown
ARG LICENSE=Apache-2.0
LABEL org.opencontainers.image.title="feedline" \
    org.opencontainers.image.description="Sends a database's changefeed, prefeed first, to Kafka topics and RabbitMQ exchanges" \
    org.opencontainers.image.version="$VERSION" \
    org.opencontainers.image.revision="$REVISION" \
    org.opencontainers.image.licenses="$LICENSE"
COPY --from=build /out/lib/ /usr/lib/
COPY --from=build /out/feedline /usr/bin/feedline
COPY --from=build --chown=65532:65532 /out/var/lib/feedline /var/lib/feedline
# A library that is missing in the base image fails the build here, not at a user.
RUN ["/usr/bin/feedline", "--version"]
USER 65532:65532
# Relative paths start here, including the checkpoint's default path.
WORKDIR /var/lib/feedline
VOLUME /var/lib/feedline
# Nothing outside the container can reach its loopback address.
ENV FEEDLINE__ADMIN__LISTEN=0.0.0.0:9464
EXPOSE 9464
STOPSIGNAL SIGTERM
ENTRYPOINT ["/usr/bin/feedline"]
CMD ["run", "--config", "/etc/feedline/feedline.toml"]
