# A small image without CUDA, for processors: docker build -t rekindle .
#   docker run --rm -v "$PWD":/work rekindle fit photos/
#   docker run --rm -v "$PWD":/work -p 127.0.0.1:8000:8000 rekindle serve latest --host 0.0.0.0
FROM python:3.12-slim

RUN pip install --no-cache-dir torch torchvision --index-url https://download.pytorch.org/whl/cpu

COPY pyproject.toml README.md LICENSE /src/
COPY src /src/src
RUN pip install --no-cache-dir '/src[serve,explain,export]' && rm -rf /src

RUN useradd --create-home rekindle
USER rekindle
WORKDIR /work
ENTRYPOINT ["rekindle"]
CMD ["--help"]
