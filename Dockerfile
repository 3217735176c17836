# The service in a container. Two images come out of this file; docs/container.md says how to build and to run them, and
# `make container-test` holds what is said there.
#
#   serve    the service, without TensorFlow; the one that is built when no target is named
#   shadow   the same, and TensorFlow, to compare with the real Keras
#
# All stages begin from one image, because an environment works only with the interpreter that it was made by. The image
# needs Python from 3.11 on, with venv, and libstdc++. Deployments pin it by its digest: see docs/container.md.
ARG PYTHON_IMAGE=docker.io/library/python:3.13-slim-trixie


# Bytecode. No process could write it where it runs: the root file system is read-only and belongs to somebody else. And
# without it each start, of a worker and of a health check too, would take a second or two of compiling. So all of it is
# written here. It is in a tree of its own (PYTHONPYCACHEPREFIX), not in folders __pycache__, because Docker's Python comes
# without bytecode of the standard library, and its folders are not ours to write to. It is never compared with its sources
# (unchecked-hash), as nothing here changes them; so the times of files, which builds and copies change, do not matter.
FROM ${PYTHON_IMAGE} AS standard-library
RUN PYTHONPYCACHEPREFIX=/opt/lstmserve/bytecode PYTHONDONTWRITEBYTECODE=1 \
    python3 -m compileall -q --invalidation-mode unchecked-hash \
      -x '/(dist-packages|ensurepip|idlelib|lib2to3|pydoc_data|site-packages|test|tests|tkinter|turtledemo)/' \
      "$(python3 -c 'import sysconfig; print(sysconfig.get_path("stdlib"))')"


# What installs is apart from what is installed: neither pip nor what builds the wheel gets into an image.
FROM ${PYTHON_IMAGE} AS installer
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 \
    PIP_PROGRESS_BAR=off \
    PYTHONDONTWRITEBYTECODE=1
RUN python3 -m venv /installer \
 && python3 -m venv --without-pip /opt/lstmserve


# The packages of others, exactly as locked, in a layer of their own: it changes only with its lock file. They are wheels,
# so none of their code runs here. The secrets are for machines that have an index, a proxy or certificates of their own;
# they are there while the command runs, and in no layer. The cache stays on the machine that builds.
FROM installer AS serve-packages
COPY requirements/image-serve.txt /tmp/
# Tests of packages are of no use here, and of SciPy only `special` is, with what it imports: 100 MB less.
RUN --mount=type=cache,target=/root/.cache/pip \
    --mount=type=secret,id=pip.conf,target=/etc/pip.conf \
    --mount=type=secret,id=ca.crt \
    /installer/bin/pip --python /opt/lstmserve/bin/python install --no-compile --no-deps \
      --require-hashes --only-binary :all: --requirement /tmp/image-serve.txt \
 && find /opt/lstmserve/lib -type d -name tests -prune -exec rm -r {} + \
 && for unused in cluster constants datasets differentiate fft fftpack integrate interpolate io ndimage odr optimize \
      signal sparse spatial stats; do rm -r /opt/lstmserve/lib/python3.*/site-packages/scipy/$unused; done \
 && PYTHONPYCACHEPREFIX=/opt/lstmserve/bytecode python3 -m compileall -q --invalidation-mode unchecked-hash /opt/lstmserve/lib


FROM installer AS shadow-packages
COPY requirements/image-shadow.txt /tmp/
# SciPy is left whole, as Keras may want what the service does not. TensorFlow's headers are for who compiles against them.
RUN --mount=type=cache,target=/root/.cache/pip \
    --mount=type=secret,id=pip.conf,target=/etc/pip.conf \
    --mount=type=secret,id=ca.crt \
    /installer/bin/pip --python /opt/lstmserve/bin/python install --no-compile --no-deps \
      --require-hashes --only-binary :all: --requirement /tmp/image-shadow.txt \
 && rm -r /opt/lstmserve/lib/python3.*/site-packages/tensorflow/include \
 && PYTHONPYCACHEPREFIX=/opt/lstmserve/bytecode python3 -m compileall -q --invalidation-mode unchecked-hash /opt/lstmserve/lib


# Our own packages alone, in an environment that is otherwise empty, to be laid over the one with the packages of others.
FROM installer AS application
COPY requirements/image-build.txt /tmp/
RUN --mount=type=cache,target=/root/.cache/pip \
    --mount=type=secret,id=pip.conf,target=/etc/pip.conf \
    --mount=type=secret,id=ca.crt \
    /installer/bin/pip install --no-compile --no-deps \
      --require-hashes --only-binary :all: --requirement /tmp/image-build.txt
WORKDIR /source
COPY pyproject.toml README.md LICENSE ./
COPY client client
COPY server server
RUN /installer/bin/pip wheel --no-build-isolation --no-deps --no-index --wheel-dir /wheels . \
 && /installer/bin/pip --python /opt/lstmserve/bin/python install --no-compile --no-deps --no-index /wheels/*.whl \
 && PYTHONPYCACHEPREFIX=/opt/lstmserve/bytecode python3 -m compileall -q --invalidation-mode unchecked-hash /opt/lstmserve/lib


# What both images are. Nothing is run from here on, so a shell is needed neither to build them nor to run them.
FROM ${PYTHON_IMAGE} AS runtime
# The default address of the service, the loopback interface, could not be reached from outside of the container.
ENV LSTMSERVE_LISTEN=0.0.0.0:50051 \
    PATH=/opt/lstmserve/bin:/usr/local/bin:/usr/bin:/bin \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONPYCACHEPREFIX=/opt/lstmserve/bytecode
# Where models are mounted or copied to, so that LSTMSERVE_MODELS may name them without a folder.
WORKDIR /models
EXPOSE 50051
HEALTHCHECK --interval=10s --timeout=5s --start-period=60s --retries=3 CMD ["/opt/lstmserve/bin/lstmserve", "health"]
# Not through a shell: the server is process 1 itself, and SIGTERM gets to it.
ENTRYPOINT ["/opt/lstmserve/bin/lstmserve"]
CMD ["serve"]
ARG PYTHON_IMAGE
LABEL org.opencontainers.image.title="lstmserve" \
      org.opencontainers.image.description="Serves Keras LSTM models over gRPC, with the state that the caller carries" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="0.1.0" \
      org.opencontainers.image.base.name="${PYTHON_IMAGE}"


FROM runtime AS shadow
COPY --from=standard-library /opt/lstmserve /opt/lstmserve
COPY --from=shadow-packages /opt/lstmserve /opt/lstmserve
COPY --from=application /opt/lstmserve /opt/lstmserve
# By number, as Kubernetes can tell only from a number that a user is not root. It owns nothing here.
USER 65532:65532
ARG REVISION=unknown
LABEL org.opencontainers.image.revision="${REVISION}"


FROM runtime AS serve
COPY --from=standard-library /opt/lstmserve /opt/lstmserve
COPY --from=serve-packages /opt/lstmserve /opt/lstmserve
COPY --from=application /opt/lstmserve /opt/lstmserve
USER 65532:65532
ARG REVISION=unknown
LABEL org.opencontainers.image.revision="${REVISION}"
