# CPUs and NVIDIA GPUs (PyPI's PyTorch brings CUDA's libraries; `docker run --gpus all` the cards):
#   docker build -t det .
#   docker run --gpus all --ipc host -v "$PWD":/data -w /data det mask_rcnn train --data my_pictures
# For CPUs alone: docker build --build-arg TORCH=cpu -t det .
FROM python:3.13-slim

ARG TORCH=auto
ENV PIP_NO_CACHE_DIR=1 UV_NO_CACHE=1 UV_SYSTEM_PYTHON=1 UV_CONSTRAINT=/det/constraints.txt PYTHONPATH=/det

# g++ compiles the operators, here and, by torch.compile, later.
RUN apt-get update && apt-get install -y --no-install-recommends g++ && rm -rf /var/lib/apt/lists/*
COPY . /det
RUN if [ "$TORCH" = cpu ]; then export UV_TORCH_BACKEND=cpu; fi \
    && pip install -c /det/constraints.txt uv \
    && uv pip install torch torchvision av pyyaml timm tyro /det/packages/det-*

ENTRYPOINT ["/det/tools/entry.sh"]
