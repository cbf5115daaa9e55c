// A stock AMQP client, without a line of tandem's own code: .NET with RabbitMQ.Client 7.
//
// WAS NOT RUN: there was no .NET where the other clients are tested. It is written after the Java one
// (StockClient.java), which is, and after the library's documentation.
//
// Signs an agent in, makes it ready, makes a call, and prints replies and events. Where a broker is
// lost it goes on at the next of its list.
//
//     dotnet new console -n Stock && cd Stock && dotnet add package RabbitMQ.Client
//     cp StockClient.cs Program.cs && dotnet run -- [--broker amqp://guest:guest@127.0.0.1:5672/%2f,amqp://…]
//         [--agent 1001] [--password pw-1001] [--extension 7001] [--call 5550142] [--seconds 5]

using System.Collections.Concurrent;
using System.Text;
using System.Text.Json;
using RabbitMQ.Client;
using RabbitMQ.Client.Events;

var given = new Dictionary<string, string>();
for (var i = 0; i + 1 < args.Length; i += 2) given[args[i][2..]] = args[i + 1];
string Option(string name, string otherwise) => given.GetValueOrDefault(name, otherwise);

var agent = Option("agent", "1001");
var password = Option("password", $"pw-{agent}");
var destination = Option("destination", $"net-{Guid.NewGuid():N}");
var cluster = Option("cluster", "tandem");
var brokers = Option("broker", "amqp://guest:guest@127.0.0.1:5672/%2f").Split(',');
var outcomes = new ConcurrentDictionary<string, string>();
var next = 0;
IConnection connection = null!;
IChannel channel = null!;
string queue = "";

// At the next broker of the list, for ever. The library's own recovery stays off: it would dial the
// same broker and keep the old names of queues.
async Task Connect()
{
    for (; ; next++)
    {
        try
        {
            var factory = new ConnectionFactory
            {
                Uri = new Uri(brokers[next % brokers.Length]),
                AutomaticRecoveryEnabled = false,
                RequestedHeartbeat = TimeSpan.FromSeconds(2),
                RequestedConnectionTimeout = TimeSpan.FromSeconds(3),
            };
            connection = await factory.CreateConnectionAsync("stock-dotnet");
            // With confirms: a publication is awaited until the broker has it.
            channel = await connection.CreateChannelAsync(new CreateChannelOptions(
                publisherConfirmationsEnabled: true, publisherConfirmationTrackingEnabled: true));
            // One queue of our own for events and replies alike, named by the broker, so anew at
            // each connection: events by our destination; replies by its name.
            queue = (await channel.QueueDeclareAsync()).QueueName;
            await channel.QueueBindAsync(queue, $"{cluster}.events", destination);
            await channel.QueueBindAsync(queue, $"{cluster}.replies", queue);
            var consumer = new AsyncEventingBasicConsumer(channel);
            consumer.ReceivedAsync += (_, message) =>
            {
                var text = Encoding.UTF8.GetString(message.Body.Span);
                using var body = JsonDocument.Parse(text);
                var reply = body.RootElement.GetProperty("type").GetString() == "Reply";
                Console.WriteLine((reply ? "reply " : "event ") + text);
                if (reply && message.BasicProperties.CorrelationId is { } id)
                    outcomes[id] = body.RootElement.GetProperty("outcome").GetString()!;
                return Task.CompletedTask;
            };
            await channel.BasicConsumeAsync(queue, autoAck: true, consumer);
            return;
        }
        catch (Exception error)
        {
            Console.WriteLine($"no connection: {error.Message}");
            await Task.Delay(200);
        }
    }
}

// Sends one command and waits for its reply. The same id in every attempt makes sure that nothing is
// done twice.
async Task<bool> Send(string command, string to, string body)
{
    var id = Guid.NewGuid().ToString();
    var end = DateTime.UtcNow.AddSeconds(int.Parse(Option("timeout", "30")));
    for (var attempt = 1; DateTime.UtcNow < end; attempt++)
    {
        Console.WriteLine($"send  {command}#{to} attempt {attempt}");
        try
        {
            var properties = new BasicProperties
            {
                Type = $"{command}#{to}", MessageId = id, CorrelationId = id, ReplyTo = queue,
                Timestamp = new AmqpTimestamp(DateTimeOffset.UtcNow.ToUnixTimeSeconds()),
                Persistent = true,
                Headers = new Dictionary<string, object?> { ["x-attempt"] = attempt },
            };
            using var confirm = new CancellationTokenSource(TimeSpan.FromSeconds(5));
            await channel.BasicPublishAsync("", Option("queue", "Connector1"), mandatory: true,
                properties, Encoding.UTF8.GetBytes(body), confirm.Token);
            while (DateTime.UtcNow < end && connection.IsOpen)
            {
                if (outcomes.TryRemove(id, out var outcome)) return outcome is "OK" or "ACCEPTED";
                await Task.Delay(10);
            }
        }
        catch (Exception error)
        {
            Console.WriteLine($"not confirmed: {error.Message}");
        }
        await connection.AbortAsync();
        next++;
        await Connect();
    }
    Console.WriteLine($"no reply to {command}#{to}");
    return false;
}

await Connect();
var done = true;
foreach (var (command, to, body) in new[]
{
    ("Hello", destination, ""),
    ("Connect", agent, $"{destination},{password}"),
    ("Login", agent, $"{password},{Option("extension", "7001")}"),
    ("MakeReady", agent, ""),
    ("MakeCall", agent, Option("call", "5550142")),
}) done = done && await Send(command, to, body);
await Task.Delay(TimeSpan.FromSeconds(int.Parse(Option("seconds", "5"))));
await connection.AbortAsync();
return done ? 0 : 1;
