#!/usr/bin/env bash
# Runs vitcnn on a Cloud TPU, on one VM or on all hosts of a slice.
#
#   ./scripts/tpu_vm.sh create                make the VM; with --queued, wait in line for it
#   ./scripts/tpu_vm.sh setup                 copy this checkout there, install it, check the TPU
#   ./scripts/tpu_vm.sh run scripts/analyze.py --config=FILE --workdir=DIR
#                                             run Python on every host, and follow its output
#   ./scripts/tpu_vm.sh logs                  follow the output again
#   ./scripts/tpu_vm.sh status                what runs, and what costs money
#   ./scripts/tpu_vm.sh stop                  let the program save its state and exit
#   ./scripts/tpu_vm.sh delete                delete the VM and its queued request
#
# Options, after the verb (for run, before the arguments of Python):
#   --type=v5e-8      generation (v4, v5e, v5p, v6e) and number, as in the table below; $TPU_TYPE
#   --name=vitcnn     name of the VM; $TPU_NAME
#   --zone=ZONE       the default is that of the table; $TPU_ZONE
#   --project=ID      the default is that of gcloud
#   --spot            a cheaper VM that Google may take back at any time
#   --queued          wait for capacity instead of failing without it
#   --extras=tpu,hub,gcs  extras of the package to install
#   --tries=10        attempts when there is no capacity or no connection, --pause=30 seconds apart
#   --dry_run         print every call of gcloud, and make none
#
# All verbs may be repeated. What has been made, installed or started is not made, installed or
# started again. A program goes on if the connection is lost. If Google has taken the VM back, the
# same `run` makes a new one, sets it up and starts the program, which resumes from its workdir; that
# has to be in a bucket then. Nothing is billed once `delete` has succeeded.
set -euo pipefail
cd "$(dirname "$0")/.."

# Generation, accelerator type, runtime, zone, what the number counts (1: chips, 2: the TensorCores,
# of which a chip has two), most chips of a single host, US$ an hour and chip: list price on demand
# in 2025, to be checked.
TABLE="
v4   v4         tpu-ubuntu2204-base  us-central2-b  2  4  3.22
v5e  v5litepod  v2-alpha-tpuv5-lite  us-west4-a     1  8  1.20
v5p  v5p        v2-alpha-tpuv5       us-east5-a     2  4  4.20
v6e  v6e        v2-alpha-tpuv6e      us-east5-b     1  8  2.70
"
PYTHON_VERSION=3.12 # the VMs come with 3.10
JOB=vitcnn-job      # folder in the home of each host: command, log, pid, exit

say() { echo "tpu_vm: $*" >&2; }
fail() {
  say "$*"
  exit 1
}
usage() { sed -n '2,/^set -euo/{/^set/d;s/^# \{0,1\}//;p;}' scripts/tpu_vm.sh; }

# ---- what is asked for ----

name=${TPU_NAME:-vitcnn} type=${TPU_TYPE:-v5e-8} zone=${TPU_ZONE:-} project=""
spot=false queued=false dry_run=false extras=tpu,hub,gcs tries=10 pause=30
[ $# -gt 0 ] || {
  usage
  exit 2
}
verb=$1
shift
case "$verb" in
  create | setup | run | logs | status | stop | delete) ;;
  -h | --help | help)
    usage
    exit 0
    ;;
  *) fail "unknown verb '$verb': expected create, setup, run, logs, status, stop or delete" ;;
esac
while [ $# -gt 0 ]; do
  case "$1" in
    --type=*) type=${1#*=} ;;
    --name=*) name=${1#*=} ;;
    --zone=*) zone=${1#*=} ;;
    --project=*) project=${1#*=} ;;
    --extras=*) extras=${1#*=} ;;
    --tries=*) tries=${1#*=} ;;
    --pause=*) pause=${1#*=} ;;
    --spot) spot=true ;;
    --queued) queued=true ;;
    --dry_run) dry_run=true ;;
    --type | --name | --zone | --project | --extras | --tries | --pause)
      fail "option '$1' needs its value after an equals sign, such as $1=${2:-VALUE}"
      ;;
    *)
      [ "$verb" = run ] && break
      fail "unknown option '$1' of $verb; ./scripts/tpu_vm.sh --help lists the options"
      ;;
  esac
  shift
done
if [ "$verb" = run ] && [ $# -eq 0 ]; then
  fail "run needs what Python is to run, such as scripts/analyze.py --config=... --workdir=..."
fi

generation=${type%-*} number=${type##*-}
[ "$generation" = v5litepod ] && generation=v5e
row=$(awk -v wanted="$generation" '$1 == wanted' <<< "$TABLE")
if [ -z "$row" ] || ! [[ "$number" =~ ^[1-9][0-9]*$ ]]; then
  fail "unknown type '$type': expected v4-N, v5e-N, v5p-N or v6e-N, such as v5e-8"
fi
read -r _ accelerator runtime default_zone cores chips_of_host price <<< "$row"
accelerator=$accelerator-$number zone=${zone:-$default_zone} chips=$((number / cores))
[ $((chips * cores)) = "$number" ] || fail "type '$type': $generation counts TensorCores, two a chip"
if [ "$cores" = 2 ] && [ $((number % 8)) != 0 ]; then
  fail "type '$type': expected a multiple of 8 TensorCores, such as $generation-8 or $generation-16"
elif [ "$cores" = 1 ] && [[ ! " 1 4 8 16 32 64 128 256 " == *" $number "* ]]; then
  fail "type '$type': $generation has slices of 1, 4, 8, 16, 32, 64, 128 and 256 chips"
fi
[[ "$name" =~ ^[a-z]([-a-z0-9]{0,61}[a-z0-9])?$ ]] ||
  fail "name '$name': expected small letters, digits and hyphens, a letter first"
[[ "$tries" =~ ^[1-9][0-9]*$ ]] || fail "--tries=$tries: expected a whole number from 1"
[[ "$pause" =~ ^[0-9]+(\.[0-9]+)?$ ]] || fail "--pause=$pause: expected a number of seconds"
several_hosts=false
[ "$chips" -gt "$chips_of_host" ] && several_hosts=true

$dry_run || command -v gcloud > /dev/null || fail "gcloud is not installed: \
https://cloud.google.com/sdk/docs/install, then gcloud auth login"

exec 3>&1 # where a dry run prints its calls, even those whose output is read
temporary=$(mktemp -d)
trap 'rm -rf "$temporary"' EXIT
errors=$temporary/errors

# ---- calls of gcloud ----

# tpu GROUP VERB ...: calls gcloud compute tpus, with zone and project.
tpu() {
  local call=(gcloud compute tpus "$@" "--zone=$zone")
  [ -n "$project" ] && call+=("--project=$project")
  if $dry_run; then
    printf '%q ' "${call[@]}" >&3 && echo >&3
  else
    "${call[@]}"
  fi
}

# Whether a call of ssh has failed because there is, or is no longer, a connection.
is_lost() { [ "$1" = 255 ] || grep -q "return code \[255\]" "$errors"; }

# on WORKER COMMAND: runs a shell command on a host, or on "all". A new VM refuses connections for a
# while, and any connection can be lost; the call is then repeated.
on() {
  local attempt status
  for ((attempt = 1; attempt <= tries; attempt++)); do
    status=0
    tpu tpu-vm ssh "$name" "--worker=$1" "--command=$2" 2> "$errors" || status=$?
    is_lost "$status" || break
    say "no connection to $name (attempt $attempt of $tries)"
    sleep "$pause"
  done
  return "$status"
}

# Prints the state of the VM: ABSENT, READY, CREATING, PREEMPTED ...; in a dry run READY.
state() {
  if $dry_run; then
    tpu tpu-vm describe "$name" "--format=value(state)"
    echo READY
  elif ! tpu tpu-vm describe "$name" "--format=value(state)" 2> "$errors"; then
    grep -qi "not.found" "$errors" || stop_with_advice "$errors"
    echo ABSENT
  fi
}

queued_state() {
  tpu queued-resources describe "$name" "--format=value(state.state)" 2> "$errors" || echo ABSENT
}

# ---- what messages of gcloud and of JAX mean ----

cost() { awk -v chips="$chips" -v price="$price" 'BEGIN {printf "%.2f", chips * price}'; }

advice() { # advice FILE: prints a sentence for each message that is known
  matches() { grep -qiE "$1" "$file"; }
  local file=$1
  if matches "quota"; then
    say "the project has no quota for $accelerator in $zone: ask for it in the Cloud console (IAM," \
      "Quotas); spot VMs have a quota of their own"
  elif matches "no more capacity|stockout|not.*enough (resources|capacity)|resource_pool_exhausted"; then
    say "no capacity for $accelerator in $zone now: wait for it with --queued, or try --spot," \
      "another --zone or a smaller --type"
  fi
  matches "SERVICE_DISABLED|has not been used in project" &&
    say "switch the API on: gcloud services enable tpu.googleapis.com"
  matches "PERMISSION_DENIED" && ! matches "SERVICE_DISABLED|has not been used" &&
    say "the account needs the role roles/tpu.admin in the project"
  matches "attribute \[project\]|core/project" &&
    say "name the project: --project=ID, or gcloud config set project ID"
  matches "gcloud auth login|no active account|reauthentication" && say "first: gcloud auth login"
  matches "TPU is already in use|libtpu_lockfile" &&
    say "another process holds the TPU. Find it on the host with 'sudo lsof -w /dev/accel*" \
      "/dev/vfio/*', end it, and remove /tmp/libtpu_lockfile"
  matches "initialization is taking more than|initialization.*timed? ?out|DEADLINE_EXCEEDED.*barrier" &&
    say "a program on a slice has to start on all of its hosts, and some host did not start:" \
      "./scripts/tpu_vm.sh status shows which; ./scripts/tpu_vm.sh run starts all of them"
  matches "requires a different python|requires-python|no Python: set up" &&
    say "wrong Python: ./scripts/tpu_vm.sh setup makes an environment with Python $PYTHON_VERSION"
  matches "unable to initialize backend 'tpu'|expected backend tpu" &&
    say "JAX does not see the TPU: run ./scripts/tpu_vm.sh setup again, and read /tmp/tpu_logs there"
  return 0
}

stop_with_advice() {
  cat "$1" >&2
  advice "$1"
  exit 1
}

still_costs() {
  say "$name ($accelerator in $zone) costs about $(cost) US\$ an hour on demand, whether or not it" \
    "works, until: ./scripts/tpu_vm.sh delete --name=$name --type=$type --zone=$zone"
}

# ---- the verbs ----

create() {
  local state
  state=$(state)
  if ! $dry_run; then
    case "$state" in
      READY) say "$name exists" && return ;;
      ABSENT) ! was_queued || queued=true ;;
      PREEMPTED | TERMINATED | STOPPED | FAILED)
        say "$name is $state, and cannot be started again: it is deleted and made anew"
        remove
        ;;
      *) await_ready && return ;;
    esac
  fi
  local options=("--accelerator-type=$accelerator")
  $spot && options+=(--spot)
  if $queued; then
    create_queued "${options[@]}" "--runtime-version=$runtime" "--node-id=$name"
  else
    create_now "${options[@]}" "--version=$runtime"
  fi
  $dry_run || await_ready
  $dry_run || still_costs
}

create_now() {
  local attempt
  for ((attempt = 1; attempt <= tries; attempt++)); do
    tpu tpu-vm create "$name" "$@" 2> "$errors" && return
    if grep -qi quota "$errors" || ! grep -qiE "capacity|stockout|exhausted|unavailable" "$errors"
    then
      break
    fi
    say "no capacity (attempt $attempt of $tries)"
    [ "$attempt" = "$tries" ] || sleep "$pause"
  done
  stop_with_advice "$errors"
}

create_queued() {
  local state
  state=$($dry_run && echo ABSENT || queued_state)
  case "$state" in
    FAILED | SUSPENDED) remove && state=ABSENT ;;
  esac
  if [ "$state" = ABSENT ]; then
    tpu queued-resources create "$name" "$@" 2> "$errors" || stop_with_advice "$errors"
  fi
  $dry_run && return
  while state=$(queued_state); do
    case "$state" in
      ACTIVE) return ;;
      FAILED | SUSPENDED | SUSPENDING | ABSENT)
        tpu queued-resources describe "$name" >&2 || true
        fail "the queued request $name is $state: try another zone, or delete it"
        ;;
    esac
    say "queued: $state (Ctrl-C is safe: the same command waits on)"
    sleep "$pause"
  done
}

await_ready() {
  local state
  while state=$(state); do
    case "$state" in
      READY) return ;;
      CREATING | STARTING | RESTARTING | REPAIRING | REIMAGING) say "$name is $state" ;;
      *) fail "$name is $state: ./scripts/tpu_vm.sh create makes it anew" ;;
    esac
    sleep "$pause"
  done
}

setup() {
  local archive=$temporary/vitcnn.tar.gz install check
  git rev-parse --git-dir > /dev/null 2>&1 ||
    fail "setup copies a checkout of the repository, and $PWD is none: git clone it, and run it there"
  # What git would commit: the state of this checkout, with changes, without ignored files.
  git ls-files -co --exclude-standard -z | while IFS= read -r -d '' file; do
    [ ! -e "$file" ] || printf '%s\0' "$file"
  done | tar --null -czf "$archive" -T -
  tpu tpu-vm scp "$archive" "$name:vitcnn.tar.gz" --worker=all 2> "$errors" ||
    stop_with_advice "$errors"
  install="set -e
export PATH=\$HOME/.local/bin:\$PATH
mkdir -p ~/vitcnn && tar -xzf ~/vitcnn.tar.gz -C ~/vitcnn && cd ~/vitcnn
command -v uv > /dev/null || curl -LsSf https://astral.sh/uv/install.sh | sh
[ -x .venv/bin/python ] || uv venv --python $PYTHON_VERSION .venv
uv pip install --quiet --python .venv/bin/python -e '.[$extras]'"
  on all "$install" || stop_with_advice "$errors"
  check="cd ~/vitcnn && .venv/bin/python -c \"
import jax
if $($several_hosts && echo True || echo False): jax.distributed.initialize()
backend, count = jax.default_backend(), jax.device_count()
assert backend == 'tpu', f'expected backend tpu, not {backend}'
assert count == $chips, f'expected $chips chips of $accelerator, not {count}'
print(f'{count} chips:', jax.devices()[0].device_kind)\""
  on all "$check" || stop_with_advice "$errors"
}

# Prints a line for each host: its name, and "running", "ended <exit code>" or "idle", then the
# command of the program.
jobs_of_hosts() {
  on all "cd ~/$JOB 2> /dev/null || { echo \$(hostname) idle; exit 0; }
if [ -e exit ]; then job=\"ended \$(cat exit)\"
elif kill -0 \$(cat pid) 2> /dev/null; then job=running
else job='ended killed'; fi
echo \$(hostname) \$job: \$(cat command)"
}

run() {
  local state jobs command python remote
  state=$(state)
  case "$state" in
    READY) ;;
    ABSENT)
      was_queued && fail "the request for $name is $(queued_state): ./scripts/tpu_vm.sh create waits" \
        "for it, or asks anew if Google has taken the VM back (add --spot for a spot VM)"
      fail "there is no $name in $zone: ./scripts/tpu_vm.sh create makes it"
      ;;
    PREEMPTED | TERMINATED | STOPPED)
      say "Google has taken $name back ($state)"
      was_spot && spot=true
      was_queued && queued=true
      create
      setup
      ;;
    *) await_ready ;;
  esac
  python=("$@")
  # Hosts of a slice find each other by the metadata of the VM.
  if $several_hosts && [[ "$*" =~ ^(scripts/|-m vitcnn )(analyze|train|ablate)(\.py)?( |$) ]]; then
    python+=(--coordinator=auto)
  fi
  printf -v command '%q ' .venv/bin/python "${python[@]}"
  # The program has a session of its own, which outlives the connection. SIGTERM goes to all of it:
  # Python saves its state, and the shell waits for that and writes the exit code.
  remote="cd ~/vitcnn && [ -x .venv/bin/python ] || { echo 'no Python: set up' >&2; exit 1; }
mkdir -p ~/$JOB && rm -f ~/$JOB/exit
echo $(printf %q "$command") > ~/$JOB/command
setsid nohup bash -c 'trap : TERM; . ~/$JOB/command > ~/$JOB/log 2>&1; echo \$? > ~/$JOB/exit' \
  > /dev/null 2>&1 < /dev/null &
echo \$! > ~/$JOB/pid"
  if $dry_run; then
    jobs_of_hosts
    on all "$remote"
    follow
    return
  fi
  jobs=$(jobs_of_hosts) || stop_with_advice "$errors"
  if grep -q " running: " <<< "$jobs"; then
    # What echo printed has lost the spaces at the end and the doubled ones.
    if grep " running: " <<< "$jobs" | grep -qvF " running: $(echo $command)"; then
      fail "another program is running: $jobs
./scripts/tpu_vm.sh logs follows it, ./scripts/tpu_vm.sh stop ends it"
    elif ! grep -qv " running: " <<< "$jobs"; then
      say "this program is running: its output follows"
      follow
      return
    fi
    say "only some hosts run this program: it is stopped and started on all of them"
    stop
  fi
  on all "$remote" || stop_with_advice "$errors"
  follow
}

was_spot() {
  local value
  value=$(tpu tpu-vm describe "$name" "--format=value(schedulingConfig.spot)" 2> "$errors") || true
  [ "$value" = True ] || [ "$value" = true ]
}

was_queued() { [ "$(queued_state)" != ABSENT ]; }

# Shows the output of the first host until the program ends, then the exit codes of all hosts.
follow() {
  local log=$temporary/log status=0 lines=0 attempt jobs state
  touch "$log"
  for ((attempt = 1; attempt <= tries; attempt++)); do
    status=0
    lines=$(wc -l < "$log")
    tpu tpu-vm ssh "$name" --worker=0 "--command=cd ~/$JOB && \
tail -n +$((lines + 1)) --pid=\$(cat pid) -F log 2> /dev/null" 2> "$errors" | tee -a "$log" ||
      status=$?
    is_lost "$status" || break
    state=$(state)
    [ "$state" = READY ] ||
      fail "Google has taken $name back ($state): the same command makes a new VM and goes on"
    say "connection lost; the program goes on, and this tries again (attempt $attempt of $tries)"
    sleep "$pause"
  done
  $dry_run && return
  ! is_lost "$status" || fail "no connection; the program goes on: ./scripts/tpu_vm.sh logs"
  for ((attempt = 1; attempt <= tries; attempt++)); do
    jobs=$(jobs_of_hosts) || stop_with_advice "$errors"
    grep -q " running: " <<< "$jobs" || break
    say "the first host has ended, others still run (attempt $attempt of $tries)"
    sleep "$pause"
  done
  if grep -qv " ended 0: " <<< "$jobs"; then
    echo "$jobs" >&2
    advice "$log"
    still_costs
    grep -q " running: " <<< "$jobs" && fail "some hosts still run: ./scripts/tpu_vm.sh stop"
    # 75 means: stopped by a signal, saved, to be continued.
    exit "$(grep -oE ' ended [0-9]+' <<< "$jobs" | awk '$2 > most {most = $2} END {print most ? most : 1}')"
  fi
  still_costs
}

status() {
  local state
  state=$(state)
  echo "$name: $state"
  if [ "$state" = READY ]; then jobs_of_hosts; fi
  inventory
}

# Lists what is billed or waiting in the zone, whoever made it.
inventory() {
  tpu tpu-vm list
  tpu queued-resources list
  $dry_run && return
  [ "$(state)" = ABSENT ] || still_costs
  say "buckets are billed until you delete them: gcloud storage ls"
}

stop() {
  on all "cd ~/$JOB && [ ! -e exit ] && kill -TERM -- -\$(cat pid) 2> /dev/null
for second in \$(seq 120); do [ -e exit ] && break; kill -0 \$(cat pid) || break; sleep 1; done
true"
}

remove() {
  if $dry_run || was_queued; then
    tpu queued-resources delete "$name" --force --quiet 2> "$errors" || stop_with_advice "$errors"
  fi
  if $dry_run || [ "$(state)" != ABSENT ]; then
    tpu tpu-vm delete "$name" --quiet 2> "$errors" || stop_with_advice "$errors"
  fi
}

case "$verb" in
  create) create ;;
  setup) setup ;;
  run) run "$@" ;;
  logs) follow ;;
  status) status ;;
  stop) stop ;;
  delete)
    remove
    inventory
    ;;
esac
