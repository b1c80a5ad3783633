# A PostgreSQL image with the extension installed and preloaded.
# The builder runs the same make targets as a developer and CI (`make install DESTDIR=…` also fills the private copies that
# the tests run), so what is special to Docker is only the copying below.
#
#   docker build -t iot_ext .
#   docker run -e POSTGRES_PASSWORD=secret -p 5432:5432 iot_ext
#   psql -h localhost -U postgres -c 'CREATE EXTENSION iot_ext' -c 'SELECT iot.setup()'

FROM rust:1.95-bookworm AS builder
WORKDIR /build
# First the tools, which change seldom, so that Docker can keep this layer.
COPY Makefile Cargo.toml ./
COPY scripts scripts
COPY tests/requirements.txt tests/
RUN make setup
COPY . .
RUN make install DESTDIR=/image

FROM postgres:15-bookworm
# Both images have Debian's layout: /usr/lib/postgresql/15/lib and /usr/share/postgresql/15/extension.
COPY --from=builder /image/usr /usr
CMD ["postgres", "-c", "shared_preload_libraries=iot_ext"]
