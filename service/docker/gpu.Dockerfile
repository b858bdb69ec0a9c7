# driftscope with vLLM on CUDA. Written with care, not built or run by us: there was no GPU.
# Build from the repository root: docker build -f service/docker/gpu.Dockerfile .
# The host needs the NVIDIA driver and container toolkit; torch's wheels bring the CUDA libraries.
FROM python:3.11.15-slim-bookworm

# g++ and the Python headers (in the image already): Triton compiles its launchers at first use.
RUN apt-get update && apt-get install -y --no-install-recommends g++ && rm -rf /var/lib/apt/lists/* \
    && groupadd --gid 10001 driftscope \
    && useradd --uid 10001 --gid 10001 --no-create-home --shell /usr/sbin/nologin driftscope \
    && install -d -o 10001 -g 10001 -m 700 /data
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
RUN python -m venv /opt/driftscope
WORKDIR /src
# vLLM pins the torch and Triton that it was built with; the rest follows from its requirements.
RUN /opt/driftscope/bin/pip install vllm==0.32.0
COPY pyproject.toml README.md LICENSE ./
COPY docs docs
COPY dashboards dashboards
COPY service service
COPY probes probes
COPY kernels kernels
RUN /opt/driftscope/bin/pip install ./service/driftscope_client ".[vllm,postgres,s3]"
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
