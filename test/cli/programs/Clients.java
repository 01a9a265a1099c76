/** Java's clients: `Clients.java URL…` asks each URL with each of them, the name as its path, and prints a line for each answer. */
import java.net.HttpURLConnection;
import java.net.URI;
import java.net.http.HttpClient;
import java.net.http.HttpRequest;
import java.net.http.HttpResponse.BodyHandlers;

public class Clients {
  public static void main(String[] urls) throws Exception {
    HttpClient client = HttpClient.newHttpClient();
    for (String url : urls) {
      HttpRequest request = HttpRequest.newBuilder(URI.create(url + "/client")).build();
      System.out.println(client.send(request, BodyHandlers.ofString()).body());
      HttpURLConnection connection = (HttpURLConnection) URI.create(url + "/connection").toURL().openConnection();
      System.out.println(new String(connection.getInputStream().readAllBytes()));
    }
  }
}
