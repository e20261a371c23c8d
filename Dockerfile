# onhand is run from its checkout: the packages are the folders, and the editable install gives the command.
FROM python:3.12-slim

RUN useradd --uid 10001 --create-home onhand \
    && install -d -o onhand -g onhand -m 0700 /var/lib/onhand

WORKDIR /opt/onhand

# the lock first, so that a change of ours does not install everything again
COPY requirements.lock ./
RUN pip install --no-cache-dir --require-hashes -r requirements.lock

COPY . ./
RUN pip install --no-cache-dir --no-build-isolation --no-deps --editable .

# snapshots are unpickled when read: the directory belongs to this user alone
ENV ONHAND_STATE__PATH=/var/lib/onhand/state \
    PYTHONUNBUFFERED=1
USER onhand
VOLUME /var/lib/onhand

ENTRYPOINT ["onhand"]
CMD ["--help"]
