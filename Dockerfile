# pyfau on a CPU, without windows (headless OpenCV), as a user without rights. See docs/container.md.
# BASE and TORCH_INDEX can name mirrors: docker build --build-arg BASE=... --build-arg TORCH_INDEX=...
ARG BASE=python:3.12-slim-bookworm
FROM ${BASE} AS build

ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
RUN python -m venv /opt/pyfau
ENV PATH=/opt/pyfau/bin:$PATH

# torch comes first: PyPI has only the CUDA build for Linux, of several gigabytes.
ARG TORCH_INDEX=https://download.pytorch.org/whl/cpu
RUN pip install torch==2.13.0 --index-url "${TORCH_INDEX}"

WORKDIR /src
COPY pyproject.toml README.md LICENSE THIRD_PARTY_NOTICES.md weights_manifest.json constraints.txt ./
COPY pyfau pyfau
# opencv-python needs libraries of a desktop; its headless version has the same functions without
# windows. The tests and headers of packages are not needed to run them (0.5 GB).
RUN pip install -c constraints.txt ".[parquet,plot,report]" \
    && pip uninstall -y opencv-python \
    && pip install --no-deps opencv-python-headless==5.0.0.93 \
    && cd /opt/pyfau/lib/python3.*/site-packages \
    && rm -rf torch/include torch/test torch/bin/test_* torch/bin/protoc* pyarrow/include \
    && find . -type d -name tests -prune -exec rm -rf {} +

FROM ${BASE}

COPY --from=build /opt/pyfau /opt/pyfau
RUN useradd --create-home --uid 10001 pyfau \
    && mkdir /data \
    && chown pyfau /data
ENV PATH=/opt/pyfau/bin:$PATH PYTHONDONTWRITEBYTECODE=1 MPLBACKEND=agg
USER 10001
WORKDIR /data

ENTRYPOINT ["pyfau"]
CMD ["doctor"]
