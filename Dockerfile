# syntax=docker/dockerfile:1

FROM rust:1.95-bookworm AS builder
WORKDIR /build
COPY . .
# libpq and OpenSSL are compiled in; the image has the C compiler, make and Perl that this takes.
RUN --mount=type=cache,target=/usr/local/cargo/registry \
    --mount=type=cache,target=/build/target \
    cargo build --release --locked && cp target/release/etl /etl

FROM debian:bookworm-slim
RUN apt-get update \
    && apt-get install -y --no-install-recommends ca-certificates \
    && rm -rf /var/lib/apt/lists/*
RUN useradd --system --uid 10001 --user-group --no-create-home etl
COPY --from=builder /etl /usr/local/bin/etl
USER etl
ENTRYPOINT ["etl"]
CMD ["start"]
