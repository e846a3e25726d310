# Heedful with its embedded models: `docker build --target cpu .` or `--target gpu`. No torch, no compiler, no root.
FROM python:3.11-slim-bookworm AS base
RUN useradd --create-home --uid 1000 heedful && install --directory --owner=heedful /home/heedful/.ray
ENV PATH=/opt/heedful/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    HEEDFUL_HOST=0.0.0.0 \
    HEEDFUL_LOG_FORMAT=json
USER 1000:1000
WORKDIR /home/heedful
EXPOSE 8000
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=5s --start-period=60s --retries=3 \
    CMD ["python", "-c", "import os, urllib.request as web; port = os.environ.get('HEEDFUL_PORT') or os.environ.get('PORT') or '8000'; web.urlopen(f'http://127.0.0.1:{port}/readyz', timeout=4)"]
CMD ["heedful", "serve"]

FROM python:3.11-slim-bookworm AS install
WORKDIR /src
COPY pyproject.toml constraints.txt README.md LICENSE ./
COPY models models
COPY service service
RUN python -m venv --without-pip /opt/heedful && ln -s lib/python3.11/site-packages/models/bundles /opt/heedful/bundles

FROM install AS install-cpu
RUN pip --python /opt/heedful/bin/python install --no-cache-dir --constraint constraints.txt '.[cpu,otel]'

FROM install AS install-gpu
RUN pip --python /opt/heedful/bin/python install --no-cache-dir --constraint constraints.txt '.[gpu,otel]' 'onnxruntime-gpu[cuda,cudnn]==1.31.1'

FROM base AS cpu
COPY --from=install-cpu /opt/heedful /opt/heedful

FROM base AS gpu
COPY --from=install-gpu /opt/heedful /opt/heedful
# The driver comes from the host (NVIDIA Container Toolkit), CUDA 13 and cuDNN 9 from the wheels.
ENV NVIDIA_VISIBLE_DEVICES=all \
    NVIDIA_DRIVER_CAPABILITIES=compute,utility \
    LD_LIBRARY_PATH=/opt/heedful/lib/python3.11/site-packages/nvidia/cu13/lib:/opt/heedful/lib/python3.11/site-packages/nvidia/cudnn/lib
