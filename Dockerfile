# Console, workers, schedule and commands of Dezky audit: one image, which needs no root and writes
# to /data, /spool and /tmp alone. docker-compose.yml says what each is started with.
ARG PYTHON=3.11.14-slim-bookworm

FROM python:${PYTHON} AS packages
WORKDIR /app
COPY requirements.txt .
# What installs stays behind.
RUN python -m venv --without-pip /app/.venv \
    && pip --python /app/.venv/bin/python install --no-cache-dir --no-compile --require-hashes \
        -r requirements.txt

FROM python:${PYTHON}
ENV PATH=/app/.venv/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    DJANGO_SETTINGS_MODULE=dezky.settings
RUN useradd --system --uid 10001 --user-group --no-create-home --home-dir /nonexistent dezky \
    && install --directory --owner dezky --group dezky --mode 0750 /data /spool
WORKDIR /app
COPY --from=packages /app/.venv .venv
COPY . .
# Static files are part of the image. Any secret key does for collecting them; none is kept.
RUN SECRET_KEY=only-for-the-build python manage.py collectstatic --no-input --verbosity 0
USER dezky
VOLUME ["/data", "/spool"]
EXPOSE 8000
# For the console, which is what runs without a command. Any answer will do: which host names are
# served is a setting.
HEALTHCHECK --interval=10s --timeout=5s --start-period=30s --retries=3 \
    CMD ["python", "-c", "import http.client as h; c = h.HTTPConnection('127.0.0.1', 8000, timeout=4); c.request('GET', '/healthz'); exit(c.getresponse().status >= 500)"]
CMD ["gunicorn", "dezky.wsgi", "--bind", "0.0.0.0:8000", "--worker-class", "gthread", "--workers", "2", "--threads", "4", "--worker-tmp-dir", "/dev/shm", "--no-control-socket"]
