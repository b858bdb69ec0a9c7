# driftscope with everything that runs without a GPU: service, probes, vLLM on CPU, kernels.
# Build from the repository root: docker build -f service/docker/cpu.Dockerfile .
FROM python:3.11.15-slim-bookworm AS dependencies

ARG TORCH_CPU_INDEX=https://download.pytorch.org/whl/cpu
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
RUN python -m venv /opt/driftscope
WORKDIR /src
# Apart from the other pins, so that a change of one of them does not fetch torch again.
COPY requirements/torch-cpu.txt requirements/
# The pins are complete; resolving would bring torchvision, which breaks transformers beside this torch.
# pip as configured first: it may know a CPU build. Elsewhere that build has an index of its own.
RUN /opt/driftscope/bin/pip install --no-deps -r requirements/torch-cpu.txt \
    || /opt/driftscope/bin/pip install --no-deps --index-url "$TORCH_CPU_INDEX" -r requirements/torch-cpu.txt
COPY requirements/cpu.txt requirements/
RUN /opt/driftscope/bin/pip install --no-deps -r requirements/cpu.txt hatchling==1.33.0 \
        pathspec==1.1.1 pluggy==1.7.0 trove-classifiers==2026.9.21.13

FROM dependencies AS build

COPY pyproject.toml README.md LICENSE ./
COPY docs docs
COPY dashboards dashboards
COPY service service
COPY probes probes
COPY kernels kernels
RUN /opt/driftscope/bin/pip wheel --no-deps --no-build-isolation --wheel-dir /wheels \
        ./service/driftscope_client .

FROM python:3.11.15-slim-bookworm

# g++: the CPU kernels are compiled for the machine they run on, at first use. libnuma1: without it
# vLLM loads none of its own ops, and says so only by an AttributeError later.
RUN apt-get update && apt-get install -y --no-install-recommends g++ libnuma1 && rm -rf /var/lib/apt/lists/* \
    && groupadd --gid 10001 driftscope \
    && useradd --uid 10001 --gid 10001 --no-create-home --shell /usr/sbin/nologin driftscope \
    && install -d -o 10001 -g 10001 -m 700 /data
# Gigabytes that change with a pin, then megabytes that change with the project: an upgrade moves these.
COPY --from=dependencies /opt/driftscope /opt/driftscope
COPY --from=build /wheels /wheels
RUN /opt/driftscope/bin/pip install --no-cache-dir --no-deps --no-index /wheels/*.whl
ENV PATH=/opt/driftscope/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    HOME=/data \
    HF_HUB_OFFLINE=1 \
    DRIFTSCOPE_DATA_DIR=/data/service \
    DRIFTSCOPE_HOME=/data/cache
USER 10001:10001
VOLUME /data
EXPOSE 8321
ENTRYPOINT ["driftscope"]
CMD ["serve", "--host", "0.0.0.0"]
