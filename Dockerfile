# onhand is run from its checkout: the packages are the folders, and the editable install gives the command.
FROM python:3.12-slim

# the state's folder belongs to the user, so that a volume made for it does, too
RUN useradd --uid 10001 --create-home onhand && install --directory --owner onhand --mode 0700 /var/lib/onhand

WORKDIR /opt/onhand

# the lock first, so that a change of ours does not install everything again
COPY requirements.lock ./
RUN pip install --no-cache-dir --require-hashes -r requirements.lock

COPY . ./
RUN pip install --no-cache-dir --no-build-isolation --no-deps --editable .

# compiled loops are kept where the user may write, and are there at the first start
RUN install --directory --owner onhand /var/cache/onhand
ENV PYTHONUNBUFFERED=1 NUMBA_CACHE_DIR=/var/cache/onhand
USER onhand
RUN python -c "import sources.kafka_columns, sinks.kafka; from operators.lane import warm_up; warm_up()"

ENTRYPOINT ["onhand"]
CMD ["--help"]
