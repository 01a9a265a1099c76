// Java's HttpClient in the matrix: BASE CASE… → one JSON line a case, as the client's user would see it.
import java.io.ByteArrayInputStream;
import java.net.URI;
import java.net.http.HttpClient;
import java.net.http.HttpRequest;
import java.net.http.HttpRequest.BodyPublishers;
import java.net.http.HttpResponse;
import java.net.http.HttpResponse.BodyHandlers;
import java.net.http.WebSocket;
import java.net.http.WebSocketHandshakeException;
import java.security.MessageDigest;
import java.util.ArrayList;
import java.util.HexFormat;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.CompletionStage;
import java.util.concurrent.TimeUnit;
import java.util.function.Supplier;
import java.util.stream.Collectors;

public class Client {
  static String base;
  static HttpClient http;

  static HttpRequest.Builder request(String path) {
    return HttpRequest.newBuilder(URI.create(base + path)).header("Authorization", "Bearer placeholder-of-the-agent");
  }

  static String quoted(String text) {
    return '"' + text.codePoints().mapToObj(one -> one == '"' || one == '\\' || one < 32
        ? String.format("\\u%04x", one) : Character.toString(one)).collect(Collectors.joining()) + '"';
  }

  static String run(String name) throws Exception {
    switch (name) {
      case "get":
        return http.send(request("/get").build(), BodyHandlers.ofString()).body();
      case "post":
        return http.send(request("/post").header("Content-Type", "application/json")
            .POST(BodyPublishers.ofString("{\"from\":\"java\"}")).build(), BodyHandlers.ofString()).body();
      case "upload":
        Supplier<ByteArrayInputStream> body = () -> new ByteArrayInputStream("u".repeat(96 * 32768).getBytes());
        return http.send(request("/upload").POST(BodyPublishers.ofInputStream(body::get)).build(), BodyHandlers.ofString()).body();
      case "download":
        return digest(http.send(request("/download").build(), BodyHandlers.ofByteArray()).body());
      case "sse":
        return sse();
      case "ws":
        return ws();
      default:
        HttpResponse<String> answer = http.send(request("/refused").DELETE().build(), BodyHandlers.ofString());
        return "{\"status\":" + answer.statusCode() + ",\"text\":" + quoted(answer.body()) + "}";
    }
  }

  static String digest(byte[] bytes) throws Exception {
    String sum = HexFormat.of().formatHex(MessageDigest.getInstance("SHA-256").digest(bytes));
    return "{\"bytes\":" + bytes.length + ",\"sha256\":\"" + sum + "\"}";
  }

  static String sse() throws Exception {
    var seen = new ArrayList<String>();
    var lines = http.send(request("/sse").build(), BodyHandlers.ofLines()).body().iterator();
    while (lines.hasNext()) {
      String line = lines.next();
      if (!line.startsWith("data:")) continue;
      seen.add(quoted(line.substring(5).trim()));
      if (seen.size() == 1) http.send(request("/seen").build(), BodyHandlers.discarding());
    }
    return "{\"events\":[" + String.join(",", seen) + "]}";
  }

  static String ws() throws Exception {
    var said = new ArrayList<String>();
    var done = new CompletableFuture<Void>();
    WebSocket socket = http.newWebSocketBuilder().buildAsync(URI.create(base.replace("https:", "wss:") + "/ws"), new WebSocket.Listener() {
      public CompletionStage<?> onText(WebSocket from, CharSequence text, boolean last) {
        said.add(text.toString());
        if (said.size() == 1) from.sendText("ping", true);
        else done.complete(null);
        from.request(1);
        return null;
      }
    }).get(10, TimeUnit.SECONDS);
    done.get(10, TimeUnit.SECONDS);
    socket.abort();
    return "{\"greeting\":" + quoted(said.get(0)) + ",\"echo\":" + quoted(said.get(1)) + "}";
  }

  public static void main(String[] args) throws Exception {
    base = args[0];
    http = HttpClient.newHttpClient();
    for (int i = 1; i < args.length; i++) {
      String found;
      try {
        found = run(args[i]);
      } catch (Exception error) {
        var cause = error.getCause() instanceof WebSocketHandshakeException refused ? refused.getResponse() : error;
        found = "{\"error\":" + quoted(String.valueOf(cause)) + "}";
      }
      System.out.println("{\"case\":\"" + args[i] + "\",\"found\":" + found + "}");
    }
    System.exit(0);
  }
}
