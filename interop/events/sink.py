"""A sink that reads events with the CloudEvents SDK and prints each as a line of JSON.

    sink.py        prints its address first
"""
import datetime
import http.server
import json

from cloudevents.core.bindings.http import HTTPMessage, from_binary_event


class Sink(http.server.BaseHTTPRequestHandler):
    def do_POST(self):
        body = self.rfile.read(int(self.headers["content-length"]))
        # The SDK checks the attributes that CloudEvents 1.0 requires, and their forms.
        event = from_binary_event(HTTPMessage(dict(self.headers.items()), body))
        attributes = event.get_attributes()
        assert attributes["specversion"] == "1.0", attributes
        assert isinstance(attributes["time"], datetime.datetime), attributes
        data = event.get_data()
        line = {name: str(value) for name, value in attributes.items()} | {"data": data}
        print(json.dumps(line), flush=True)
        self.send_response(202)
        self.end_headers()

    def log_message(self, *_):
        pass


server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Sink)
print(f"http://127.0.0.1:{server.server_port}/", flush=True)
server.serve_forever()
