#!/usr/bin/env bash
# A SLURM cluster of one node on this machine, for tests: controller, node and authentication, all in one folder and on
# the loopback interface; nothing outside the folder is changed. Debian: apt-get install slurmctld slurmd slurm-client munge
#
#     tests/slurm/cluster.sh start FOLDER     then: export SLURM_CONF=FOLDER/slurm.conf
#     tests/slurm/cluster.sh stop FOLDER
set -euo pipefail
export PATH=$PATH:/usr/sbin:/sbin
action=$1 folder=$(realpath -m "$2")
export SLURM_CONF=$folder/slurm.conf

pids() { cat "$folder"/*.pid 2>/dev/null || true; }

alive() { # zombies are dead
    for pid in $(pids); do [[ $(ps -o stat= -p "$pid" 2>/dev/null) =~ ^[^Z] ]] && return 0; done
    return 1
}

stop() {
    timeout 20 scancel --user="$(id -un)" 2>/dev/null || true
    for pid in $(pids); do kill "$pid" 2>/dev/null || true; done
    for _ in $(seq 50); do alive || return 0; sleep 0.2; done
    for pid in $(pids); do kill -9 "$pid" 2>/dev/null || true; done
}

start() {
    mkdir -p "$folder"/{state,spool}
    chmod 711 "$folder"
    port=${SLURM_TEST_PORT:-$((20000 + $$ % 10000))}
    # cred_expire: also how long a job that was queued again waits, 120 s unless told. Job ids begin with the clock, so
    # that those of an earlier cluster are not used again. Several virtual CPUs, whatever the machine has.
    cat >"$SLURM_CONF" <<CONF
ClusterName=test
SlurmctldHost=localhost(127.0.0.1)
SlurmctldPort=$port
SlurmdPort=$((port + 1))
CommunicationParameters=NoCtldInAddrAny,NoInAddrAny
SlurmUser=$(id -un)
SlurmdUser=$(id -un)
AuthType=auth/munge
AuthInfo=socket=$folder/munge.socket,cred_expire=5
CredType=cred/munge
StateSaveLocation=$folder/state
SlurmdSpoolDir=$folder/spool
SlurmctldPidFile=$folder/slurmctld.pid
SlurmdPidFile=$folder/slurmd.pid
SlurmctldLogFile=$folder/slurmctld.log
SlurmdLogFile=$folder/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
MpiDefault=none
AccountingStorageType=accounting_storage/none
JobAcctGatherType=jobacct_gather/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
SchedulerParameters=batch_sched_delay=1,sched_interval=5
SlurmdParameters=config_overrides
SlurmctldParameters=preempt_send_user_signal
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
ReturnToService=2
KillWait=10
FirstJobId=$(($(date +%s) % 10000000))
NodeName=localhost CPUs=4 State=UNKNOWN
PartitionName=low Nodes=localhost Default=YES MaxTime=INFINITE PriorityTier=1 GraceTime=60
PartitionName=high Nodes=localhost MaxTime=INFINITE PriorityTier=10
CONF
    (umask 077 && head -c 1024 /dev/urandom >"$folder/munge.key")
    munged --force --key-file="$folder/munge.key" --socket="$folder/munge.socket" --pid-file="$folder/munged.pid" \
        --log-file="$folder/munged.log" --seed-file="$folder/munged.seed" 2>/dev/null
    slurmctld -c
    slurmd -N localhost
    for _ in $(seq 100); do
        [[ $(timeout 5 sinfo --noheader --partition=low --format=%t 2>/dev/null) == idle ]] && return 0
        sleep 0.2
    done
    tail -n 5 "$folder"/slurm*.log >&2
    return 1
}

"$action"
