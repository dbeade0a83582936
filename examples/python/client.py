"""A bank's client: submits transactions, watches them, prints what became of them.

The stubs are compiled from ../../proto at the start, into a temporary folder. The ids of the transactions are
derived from --payer, --reference and their number: running the same command again answers the stored outcomes and
pays nothing twice.

Exit codes: 0 all were accepted, 1 some were refused, 2 wrong usage, 3 the platform does not answer (run it again).
"""

import argparse
import importlib
import json
import pathlib
import sys
import tempfile
import threading
import uuid

import grpc
import grpc_tools
from grpc_tools import protoc

PROTO = pathlib.Path(__file__).resolve().parents[2] / "proto"
# Under which names the ids of this client's transactions are made.
NAMESPACE = uuid.UUID("6f1d3a52-3c1b-5a64-9f0e-0c5d2b7a9e11")


def stubs(folder):
    """Compiles the contract into the folder; returns the modules of the token engine."""
    well_known = pathlib.Path(grpc_tools.__file__).parent / "_proto"
    files = [str(path) for path in sorted(PROTO.rglob("*.proto"))]
    arguments = ["protoc", f"-I{PROTO}", f"-I{well_known}", f"--python_out={folder}", f"--grpc_python_out={folder}"]
    if not files or protoc.main(arguments + files) != 0:
        sys.exit(f"error: the contract in {PROTO} cannot be compiled")
    sys.path.insert(0, folder)
    return importlib.import_module("deltran.token.v1.token_pb2"), importlib.import_module("deltran.token.v1.token_pb2_grpc")


def default_endpoint():
    """What `deltran up` left in ./data, else the usual address."""
    try:
        return json.loads(pathlib.Path("data/endpoint.json").read_text(encoding="utf-8"))["grpc"]
    except (OSError, ValueError, KeyError):
        return "http://127.0.0.1:50051"


class Watch(threading.Thread):
    """Reads the bank's events from now on and keeps the last one of each transaction that is waited for."""

    def __init__(self, token, service, who, wanted):
        super().__init__(daemon=True)
        self.wanted = wanted
        self.seen = {}
        self.problem = None
        self.changed = threading.Condition()
        self.call = service.WatchTransactions(token.WatchTransactionsRequest(only_new=True), metadata=who)
        # The answer's headers come when the platform is watching: what is submitted afterwards is seen.
        self.call.initial_metadata()

    def run(self):
        try:
            for answer in self.call:
                transaction = json.loads(answer.envelope)["data"].get("transaction_id")
                if transaction in self.wanted:
                    with self.changed:
                        self.seen[transaction] = (answer.position, answer.event_type)
                        self.changed.notify_all()
        except grpc.RpcError as error:
            # Cancelling is how it is ended.
            if error.code() != grpc.StatusCode.CANCELLED:
                with self.changed:
                    self.problem = error.details()
                    self.changed.notify_all()

    def wait_for(self, ids, seconds):
        """Whether an event of each was seen in time."""
        with self.changed:
            self.changed.wait_for(lambda: self.problem or all(i in self.seen for i in ids), timeout=seconds)
            return all(i in self.seen for i in ids)


def run(token, token_grpc, options):
    """Submits and watches; returns the exit code."""
    # The bank names itself; the platform serves loopback only and has no TLS.
    who = (("deltran-participant", options.payer),)
    ids = [str(uuid.uuid5(NAMESPACE, f"{options.payer}/{options.reference}/{n}")) for n in range(1, options.count + 1)]
    target = options.endpoint.removeprefix("http://")
    with grpc.insecure_channel(target) as channel:
        service = token_grpc.TokenServiceStub(channel)
        watch = Watch(token, service, who, set(ids))
        watch.start()
        refused, fresh = 0, []
        for number, transaction in enumerate(ids, start=1):
            instruction = token.TransactionInstruction(
                transaction_id=transaction,
                payer=options.payer,
                payee=options.payee,
                amount={"amount": options.amount, "currency": options.currency},
                end_to_end_id=f"{options.reference}-{number}",
            )
            request = token.SubmitTransactionRequest(transaction=instruction)
            answer = service.SubmitTransaction(request, metadata=who, timeout=30)
            outcome = answer.outcome
            refused += outcome.state == token.REJECTED
            if not answer.replayed:
                fresh.append(transaction)
            print(
                "outcome",
                transaction,
                token.TransactionState.Name(outcome.state),
                outcome.refusal.code or outcome.window_id or "-",
                "replayed" if answer.replayed else "new",
            )
        complete = watch.wait_for(fresh, 30)
        watch.call.cancel()
        watch.join()
        for transaction in fresh:
            position, event = watch.seen.get(transaction, (0, "no event in time"))
            print("event", transaction, event, position)
        print(f"{options.count} submitted, {options.count - refused} accepted, {refused} refused, {len(fresh)} new")
        if not complete:
            print(f"error: not every event was seen: {watch.problem or 'none came in time'}", file=sys.stderr)
            return 3
        return 1 if refused else 0


def arguments():
    """What the command line says."""
    parser = argparse.ArgumentParser(description="Submits transactions as a bank and watches them.")
    parser.add_argument("--endpoint", default=default_endpoint(), help="address of the platform [default: %(default)s]")
    parser.add_argument("--payer", required=True, metavar="BIC", help="who pays; calls as this participant")
    parser.add_argument("--payee", required=True, metavar="BIC", help="who is paid")
    parser.add_argument("--amount", required=True, help="with exactly the currency's minor digits, such as 10.00")
    parser.add_argument("--currency", required=True, help="ISO 4217 code")
    parser.add_argument("--count", type=int, default=1, help="how many, 1 to 1000 [default: 1]")
    parser.add_argument("--reference", default="PY", help="names the ids: another reference, other transactions; at most 30 characters")
    options = parser.parse_args()
    if not 1 <= options.count <= 1000:
        parser.error("--count takes 1 to 1000")
    if not 1 <= len(options.reference) <= 30:
        parser.error("--reference takes 1 to 30 characters")
    return options


def main():
    """Returns the exit code."""
    options = arguments()
    with tempfile.TemporaryDirectory() as folder:
        token, token_grpc = stubs(folder)
        try:
            return run(token, token_grpc, options)
        except grpc.RpcError as error:
            print(f"error: {error.details()}", file=sys.stderr)
            unknown = (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.RESOURCE_EXHAUSTED, grpc.StatusCode.DEADLINE_EXCEEDED)
            return 3 if error.code() in unknown else 1


if __name__ == "__main__":
    sys.exit(main())
