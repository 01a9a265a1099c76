"""Reads requests with h11, which takes nothing but what RFC 9112 allows, and says on a line of its own what each was."""

import asyncio
import json
import sys

import h11


def say(**what):
    print(json.dumps(what), flush=True)


async def serve(reader, writer):
    connection = h11.Connection(h11.SERVER)
    request, body = None, b""
    try:
        while True:
            event = connection.next_event()
            if event is h11.NEED_DATA:
                connection.receive_data(await reader.read(65536))
            elif isinstance(event, h11.Request):
                request, body = event, b""
            elif isinstance(event, h11.Data):
                body += bytes(event.data)
            elif isinstance(event, h11.EndOfMessage):
                say(method=request.method.decode(), target=request.target.decode("latin1"), bytes=len(body))
                head = h11.Response(status_code=200, headers=[("content-length", "0")])
                writer.write(connection.send(head) + connection.send(h11.EndOfMessage()))
                if connection.our_state is h11.MUST_CLOSE:
                    break
                connection.start_next_cycle()
            else:
                break
    except h11.RemoteProtocolError as cause:
        if connection.their_state is h11.ERROR and "peer unexpectedly closed" not in str(cause) and "incomplete" not in str(cause):
            say(wrong=str(cause), after=request.target.decode("latin1") if request else "")
    except ConnectionError:
        pass
    finally:
        writer.close()


async def main():
    server = await asyncio.start_server(serve, "127.0.0.1", int(sys.argv[1]))
    say(listening=True)
    async with server:
        await server.serve_forever()


asyncio.run(main())
