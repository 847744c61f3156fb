# Two images: `isthmus` is the operator and the tunnel supervisor, `isthmus-front` is the same and
# Envoy, for the fronts of ModelDeployments.
#
#   make images REGISTRY=registry.example.org/isthmus TAG=0.1.0
#
# builds both from the base images that images.lock names, by digest where `make digests` has written
# some. What Python installs is fixed by hash: requirements.lock, and build-requirements.lock for what
# builds our own package. Debian's ssh comes at its newest, checked by apt with Debian's keys.
#
# Nothing is fetched where BASE has ssh and sshd, and WHEELS names a folder of the build context that
# holds every wheel of both locks. The playground builds that way (playground/dockerfile.py).
ARG BASE=docker.io/library/python:3.13-slim-bookworm
ARG ENVOY=docker.io/envoyproxy/envoy:distroless-v1.40.0

# Envoy as its makers publish it.
FROM ${ENVOY} AS envoy

FROM ${BASE} AS runtime
# sshd is what jobs of network.mode Reverse call; it runs as a child of the tunnel supervisor, as its
# user. ssh and sshd refuse to run for a user without a line in /etc/passwd.
RUN { test -x /usr/bin/ssh -a -x /usr/sbin/sshd \
      || { apt-get update \
           && apt-get install -y --no-install-recommends openssh-client openssh-server \
           && rm -f /etc/ssh/ssh_host_* \
           && rm -rf /var/lib/apt/lists/*; }; } \
    && echo 'isthmus:x:65532:65532:Isthmus:/home/isthmus:/bin/false' >>/etc/passwd \
    && echo 'isthmus:x:65532:' >>/etc/group \
    && mkdir -p /home/isthmus
ENV PATH=/opt/isthmus/bin:$PATH PYTHONUNBUFFERED=1
USER 65532:65532
WORKDIR /home/isthmus

# pip and what builds our package, in an environment of its own that is in neither image. The pip of
# the base, or of WHEELS, installs nothing but these.
FROM ${BASE} AS pip
ARG BASE
ARG ENVOY
ARG WHEELS=LICENSE
COPY ${WHEELS} /build/wheels/
COPY build-requirements.lock /build/
RUN for image in "$BASE" "$ENVOY"; do \
      case $image in \
        *@sha256:*|localhost/*) ;; \
        *) echo "images.lock has no digest for $image: its tag was used, which may be another image \
tomorrow; run 'make digests' and build with 'make images'" ;; \
      esac; \
    done
ENV PIP_CONFIG_FILE=/build/pip.conf \
    PIP_DISABLE_PIP_VERSION_CHECK=1 \
    PIP_NO_CACHE_DIR=1 \
    PIP_NO_COMPILE=1 \
    PIP_ONLY_BINARY=:all: \
    PIP_REQUIRE_HASHES=1 \
    PIP_ROOT_USER_ACTION=ignore
RUN python3 -m venv --without-pip /build/venv \
    && touch /build/pip.conf \
    && pip="python3 -m pip --python /build/venv/bin/python" \
    && if wheel=$(ls /build/wheels/pip-*.whl 2>/dev/null); then \
         printf '[global]\nno-index = true\nfind-links = /build/wheels\n' >/build/pip.conf \
         && pip="/build/venv/bin/python $wheel/pip"; \
       fi \
    && $pip install --quiet --requirement /build/build-requirements.lock
ENV PATH=/build/venv/bin:$PATH

# What pyproject.toml depends on: changes seldom, so it comes first. Compiled files refer to no times
# (builders change them), and a container cannot write any.
FROM pip AS dependencies
COPY requirements.lock /build/
RUN python3 -m venv --without-pip /opt/isthmus \
    && pip --python /opt/isthmus/bin/python install --quiet --requirement /build/requirements.lock \
    && python -m compileall -q --invalidation-mode unchecked-hash /opt/isthmus/lib

# Isthmus alone, below /package: built by what stands in the lock, and not in an isolation of pip's,
# which would fetch what it likes.
FROM dependencies AS package
COPY pyproject.toml README.md LICENSE /build/source/
COPY operator /build/source/operator
RUN unset PIP_REQUIRE_HASHES PIP_ONLY_BINARY \
    && pip wheel --quiet --no-deps --no-build-isolation --wheel-dir /build/made /build/source \
    && pip --python /opt/isthmus/bin/python install --quiet --no-deps --no-index \
         --no-warn-script-location --root /package /build/made/*.whl \
    && python -m compileall -q --invalidation-mode unchecked-hash \
         -s /package /package/opt/isthmus/lib

FROM runtime AS common
COPY --from=dependencies /opt/isthmus /opt/isthmus

FROM common AS isthmus
COPY --from=package /package/opt/isthmus /opt/isthmus
ENTRYPOINT ["isthmus"]
CMD ["run"]

FROM common AS isthmus-front
COPY --from=envoy /usr/local/bin/envoy /usr/local/bin/envoy
COPY --from=package /package/opt/isthmus /opt/isthmus
ENTRYPOINT ["isthmus"]
