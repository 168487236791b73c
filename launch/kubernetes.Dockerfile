# The image of kubernetes-mpijob.yaml: moe-lm, Open MPI, and an SSH server that an ordinary user can run on port 2222.
#
#   docker build -f launch/kubernetes.Dockerfile -t registry.example.com/crosspoint:0.1.0 .
FROM swift:6.3-bookworm AS build
RUN apt-get update && apt-get install -y --no-install-recommends \
      libopenmpi-dev openmpi-bin libopenblas-dev pkg-config
COPY . /src
WORKDIR /src
RUN swift build -c release --static-swift-stdlib --product moe-lm

# The same distribution, so that the C library, Open MPI and OpenBLAS are those it was linked with.
FROM debian:bookworm-slim
RUN apt-get update && apt-get install -y --no-install-recommends \
      openmpi-bin libopenblas0 openssh-server openssh-client \
    && rm -rf /var/lib/apt/lists/* \
    && mkdir -p /run/sshd \
    && useradd --create-home --uid 1000 mpiuser
# The operator mounts the job's own keys at /home/mpiuser/.ssh; hosts are new with every job, so none is remembered.
RUN printf 'Host *\n  Port 2222\n  StrictHostKeyChecking no\n  UserKnownHostsFile /dev/null\n' \
      > /etc/ssh/ssh_config.d/mpi.conf \
    && printf 'Port 2222\nHostKey /home/mpiuser/.ssh/id_rsa\nPidFile /home/mpiuser/sshd.pid\nStrictModes no\n' \
      > /home/mpiuser/.sshd_config
COPY --from=build /src/.build/release/moe-lm /opt/crosspoint/moe-lm
USER mpiuser
