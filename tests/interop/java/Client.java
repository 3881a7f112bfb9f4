// The WebSocket client of the JDK, which knows no compression: URL SCENARIO, see
// tests/interop/scenarios.py.

import java.io.ByteArrayOutputStream;
import java.net.URI;
import java.net.http.HttpClient;
import java.net.http.WebSocket;
import java.nio.ByteBuffer;
import java.nio.charset.StandardCharsets;
import java.security.MessageDigest;
import java.util.HexFormat;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.CompletionStage;
import java.util.concurrent.LinkedBlockingQueue;

public class Client implements WebSocket.Listener {
    static final int[] SIZES = {0, 1, 125, 126, 65535, 65536, 1_000_000};

    final LinkedBlockingQueue<Boolean> received = new LinkedBlockingQueue<>();
    final CompletableFuture<Void> closed = new CompletableFuture<>();
    final StringBuilder text = new StringBuilder();
    final ByteArrayOutputStream binary = new ByteArrayOutputStream();

    public static void main(String[] arguments) throws Exception {
        String scenario = arguments[1];
        Client client = new Client();
        WebSocket socket =
            HttpClient.newHttpClient()
                .newWebSocketBuilder()
                .buildAsync(URI.create(arguments[0]), client)
                .join();
        if (scenario.equals("text") || scenario.equals("binary")) {
            for (int size : SIZES) {
                if (scenario.equals("text")) {
                    socket.sendText("é€😀a".repeat(size / 10) + "x".repeat(size % 10), true).join();
                } else {
                    socket.sendBinary(pattern(size), true).join();
                }
                client.received.take();
            }
            socket.sendClose(1000, "").join();
        } else if (scenario.equals("close")) {
            socket.sendClose(4000, "bye").join();
        }
        client.closed.join();
        System.exit(0);
    }

    static ByteBuffer pattern(int size) {
        byte[] data = new byte[size];
        for (int index = 0; index < size; index++) {
            data[index] = (byte) (index % 251);
        }
        return ByteBuffer.wrap(data);
    }

    static void report(String kind, byte[] data) {
        try {
            byte[] digest = MessageDigest.getInstance("SHA-256").digest(data);
            System.out.printf(
                "{\"event\": \"message\", \"kind\": \"%s\", \"size\": %d, \"sha256\": \"%s\"}%n",
                kind, data.length, HexFormat.of().formatHex(digest));
        } catch (java.security.NoSuchAlgorithmException impossible) {
            throw new AssertionError(impossible);
        }
    }

    @Override
    public CompletionStage<?> onText(WebSocket socket, CharSequence part, boolean last) {
        text.append(part);
        if (last) {
            report("text", text.toString().getBytes(StandardCharsets.UTF_8));
            text.setLength(0);
            received.add(true);
        }
        socket.request(1);
        return null;
    }

    @Override
    public CompletionStage<?> onBinary(WebSocket socket, ByteBuffer part, boolean last) {
        byte[] data = new byte[part.remaining()];
        part.get(data);
        binary.writeBytes(data);
        if (last) {
            report("binary", binary.toByteArray());
            binary.reset();
            received.add(true);
        }
        socket.request(1);
        return null;
    }

    @Override
    public CompletionStage<?> onClose(WebSocket socket, int code, String reason) {
        System.out.printf("{\"event\": \"closed\", \"code\": %d, \"reason\": \"%s\"}%n", code, reason);
        closed.complete(null);
        return null;
    }

    @Override
    public void onError(WebSocket socket, Throwable problem) {
        problem.printStackTrace();
        System.exit(1);
    }
}
