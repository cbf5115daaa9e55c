// A stock AMQP client, without a line of tandem's own code: Java with RabbitMQ's client library.
//
// Signs an agent in, makes it ready, makes a call, and prints replies and events. Where a broker is
// lost it goes on at the next of its list.
//
//     apt-get install default-jdk-headless librabbitmq-client-java    (or com.rabbitmq:amqp-client)
//     java -cp '/usr/share/java/amqp-client.jar:/usr/share/java/slf4j-api.jar' StockClient.java
//         [--broker amqp://guest:guest@127.0.0.1:5672/%2f,amqp://…] [--agent 1001]
//         [--password pw-1001] [--extension 7001] [--call 5550142] [--seconds 5]
//
// Exit code 0: every command was done or accepted; 1: one was not, or had no reply in time.

import com.rabbitmq.client.AMQP;
import com.rabbitmq.client.Channel;
import com.rabbitmq.client.Connection;
import com.rabbitmq.client.ConnectionFactory;
import com.rabbitmq.client.DefaultConsumer;
import com.rabbitmq.client.Envelope;
import java.nio.charset.StandardCharsets;
import java.util.Date;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.UUID;
import java.util.concurrent.ConcurrentHashMap;
import java.util.regex.Matcher;
import java.util.regex.Pattern;

public class StockClient {
  static final Pattern REPLY = Pattern.compile("\"type\":\"Reply\"");
  static final Pattern OUTCOME = Pattern.compile("\"outcome\":\"([A-Z_]+)\"");
  static final int CONFIRM_MILLIS = 5000;

  final Map<String, String> given = new HashMap<>();
  final Map<String, String> outcomes = new ConcurrentHashMap<>();
  final List<String> brokers;
  int next = 0;
  Connection connection;
  Channel channel;
  String queue;

  StockClient(String[] words) {
    for (int i = 0; i + 1 < words.length; i += 2) given.put(words[i].substring(2), words[i + 1]);
    brokers = List.of(option("broker", "amqp://guest:guest@127.0.0.1:5672/%2f").split(","));
  }

  String option(String name, String otherwise) {
    return given.getOrDefault(name, otherwise);
  }

  // At the next broker of the list, for ever. The library's own recovery stays off: it would dial
  // the same broker and keep the old names of queues.
  void connect() throws InterruptedException {
    for (; ; next++) {
      String broker = brokers.get(next % brokers.size());
      try {
        ConnectionFactory factory = new ConnectionFactory();
        factory.setUri(broker);
        factory.setAutomaticRecoveryEnabled(false);
        factory.setRequestedHeartbeat(2);
        factory.setConnectionTimeout(3000);
        connection = factory.newConnection("stock-java");
        channel = connection.createChannel();
        channel.confirmSelect(); // the broker says when it has a command: then it gets an answer
        channel.addReturnListener(back -> System.out.println("no queue " + back.getRoutingKey()));
        listen();
        System.out.println("connected to " + factory.getHost() + ":" + factory.getPort());
        return;
      } catch (Exception error) {
        System.out.println("no connection: " + error);
        Thread.sleep(200);
      }
    }
  }

  // One queue of our own for events and replies alike, named by the broker, so anew at each
  // connection: events by our destination; replies by its name, directly from this broker or through
  // the exchange where another one answers.
  void listen() throws Exception {
    String cluster = option("cluster", "tandem");
    queue = channel.queueDeclare("", false, true, true, null).getQueue();
    channel.queueBind(queue, cluster + ".events", destination());
    channel.queueBind(queue, cluster + ".replies", queue);
    channel.basicConsume(queue, true, new DefaultConsumer(channel) {
      @Override
      public void handleDelivery(String tag, Envelope to, AMQP.BasicProperties message, byte[] body) {
        String text = new String(body, StandardCharsets.UTF_8);
        boolean reply = REPLY.matcher(text).find();
        System.out.println((reply ? "reply " : "event ") + text);
        Matcher outcome = OUTCOME.matcher(text);
        if (reply && outcome.find()) outcomes.put(message.getCorrelationId(), outcome.group(1));
      }
    });
  }

  String destination() {
    return given.computeIfAbsent("destination", name -> "java-" + UUID.randomUUID());
  }

  // Sends one command and waits for its reply. True where it was done or accepted. The same id in
  // every attempt makes sure that nothing is done twice.
  boolean send(String command, String to, String body) throws InterruptedException {
    String id = UUID.randomUUID().toString();
    long end = System.currentTimeMillis() + Long.parseLong(option("timeout", "30")) * 1000;
    for (int attempt = 1; System.currentTimeMillis() < end; attempt++) {
      System.out.println("send  " + command + "#" + to + " attempt " + attempt);
      try {
        AMQP.BasicProperties properties = new AMQP.BasicProperties.Builder()
            .type(command + "#" + to).messageId(id).correlationId(id).replyTo(queue)
            .timestamp(new Date()).deliveryMode(2).headers(Map.of("x-attempt", attempt)).build();
        byte[] bytes = body.getBytes(StandardCharsets.UTF_8);
        channel.basicPublish("", option("queue", "Connector1"), true, properties, bytes);
        channel.waitForConfirmsOrDie(CONFIRM_MILLIS);
        // As long as the connection lasts the reply comes to this queue.
        while (System.currentTimeMillis() < end && connection.isOpen()) {
          String outcome = outcomes.remove(id);
          if (outcome != null) return outcome.equals("OK") || outcome.equals("ACCEPTED");
          Thread.sleep(10);
        }
      } catch (Exception error) {
        if (error instanceof InterruptedException) throw (InterruptedException) error;
        System.out.println("not confirmed: " + error);
      }
      if (connection.isOpen()) connection.abort();
      next++;
      connect();
    }
    System.out.println("no reply to " + command + "#" + to);
    return false;
  }

  public static void main(String[] words) throws Exception {
    StockClient client = new StockClient(words);
    String agent = client.option("agent", "1001");
    String password = client.option("password", "pw-" + agent);
    String[][] steps = {
      {"Hello", client.destination(), ""},
      {"Connect", agent, client.destination() + "," + password},
      {"Login", agent, password + "," + client.option("extension", "7001")},
      {"MakeReady", agent, ""},
      {"MakeCall", agent, client.option("call", "5550142")},
    };
    client.connect();
    boolean done = true;
    for (String[] step : steps) {
      done = done && client.send(step[0], step[1], step[2]);
      Thread.sleep(Long.parseLong(client.option("pause", "0")));
    }
    Thread.sleep(Long.parseLong(client.option("seconds", "5")) * 1000);
    client.connection.abort();
    System.exit(done ? 0 : 1);
  }
}
