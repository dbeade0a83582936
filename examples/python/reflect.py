"""Asks the platform what it serves, and calls one of its services without any stubs.

What is needed to speak with it comes from the platform itself, by gRPC server reflection.
"""

import argparse
import sys

import grpc
from google.protobuf import json_format
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message_factory import GetMessageClass
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase

from client import default_endpoint

SERVICE = "deltran.platform.v1.PlatformService"
METHOD = "GetStatus"


def main():
    """Returns the exit code."""
    parser = argparse.ArgumentParser(description="Lists the services, then asks for the platform's status.")
    parser.add_argument("--endpoint", default=default_endpoint(), help="address of the platform [default: %(default)s]")
    options = parser.parse_args()
    try:
        with grpc.insecure_channel(options.endpoint.removeprefix("http://")) as channel:
            database = ProtoReflectionDescriptorDatabase(channel)
            for service in sorted(database.get_services()):
                print("service", service)
            method = DescriptorPool(database).FindServiceByName(SERVICE).FindMethodByName(METHOD)
            request, response = GetMessageClass(method.input_type), GetMessageClass(method.output_type)
            call = channel.unary_unary(
                f"/{SERVICE}/{METHOD}",
                request_serializer=request.SerializeToString,
                response_deserializer=response.FromString,
            )
            who = (("deltran-role", "operator"), ("deltran-user", "python"))
            print(json_format.MessageToJson(call(request(), metadata=who, timeout=10), preserving_proto_field_name=True))
    except grpc.RpcError as error:
        print(f"error: {error.details()}", file=sys.stderr)
        return 3 if error.code() == grpc.StatusCode.UNAVAILABLE else 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
