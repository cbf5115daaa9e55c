// A stock AMQP client, without a line of tandem's own code: Go with RabbitMQ's amqp091-go.
//
// Signs an agent in, makes it ready, makes a call, and prints replies and events. Where a broker is
// lost it goes on at the next of its list.
//
//	go mod init stock && go get github.com/rabbitmq/amqp091-go
//	    (or Debian's golang-github-rabbitmq-amqp091-go-dev with GO111MODULE=off GOPATH=/usr/share/gocode)
//	go run stock_client.go [-broker amqp://guest:guest@127.0.0.1:5672/%2f,amqp://…] [-agent 1001]
//	    [-password pw-1001] [-extension 7001] [-call 5550142] [-seconds 5]
//
// Exit code 0: every command was done or accepted; 1: one was not, or had no reply in time.
package main

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"strings"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"
)

var (
	brokers     = flag.String("broker", "amqp://guest:guest@127.0.0.1:5672/%2f", "AMQP URIs, commas between them")
	queue       = flag.String("queue", "Connector1", "command queue")
	cluster     = flag.String("cluster", "tandem", "cluster.name of the connectors")
	destination = flag.String("destination", "go-"+unique(), "where events go")
	agent       = flag.String("agent", "1001", "")
	password    = flag.String("password", "", "default: pw-<agent>, as the simulator has it")
	extension   = flag.String("extension", "7001", "")
	call        = flag.String("call", "5550142", "number to call")
	timeout     = flag.Duration("timeout", 30*time.Second, "how long to wait for a reply")
	pause       = flag.Duration("pause", 0, "between two commands")
	seconds     = flag.Int("seconds", 5, "print events this long at the end")
)

const confirmTime = 5 * time.Second

func unique() string {
	bytes := make([]byte, 16)
	if _, err := rand.Read(bytes); err != nil {
		panic(err)
	}
	return fmt.Sprintf("%x", bytes)
}

type client struct {
	list       []string
	next       int
	connection *amqp.Connection
	channel    *amqp.Channel
	lost       chan *amqp.Error
	own        string // queue
	replies    chan reply
}

type reply struct{ id, outcome string }

// At the next broker of the list, for ever.
func (c *client) connect() {
	for ; ; c.next++ {
		broker := c.list[c.next%len(c.list)]
		err := c.open(broker)
		if err == nil {
			fmt.Println("connected to", broker[strings.LastIndex(broker, "@")+1:])
			return
		}
		fmt.Println("no connection:", err)
		time.Sleep(200 * time.Millisecond)
	}
}

func (c *client) open(broker string) (err error) {
	config := amqp.Config{Heartbeat: 2 * time.Second, Dial: amqp.DefaultDial(3 * time.Second)}
	if c.connection, err = amqp.DialConfig(broker, config); err != nil {
		return err
	}
	defer func() {
		if err != nil {
			c.connection.Close()
		}
	}()
	c.lost = c.connection.NotifyClose(make(chan *amqp.Error, 1))
	if c.channel, err = c.connection.Channel(); err != nil {
		return err
	}
	// The broker says when it has a command: from then on it gets an answer.
	if err = c.channel.Confirm(false); err != nil {
		return err
	}
	go func(returns <-chan amqp.Return) {
		for back := range returns {
			fmt.Println("no queue", back.RoutingKey)
		}
	}(c.channel.NotifyReturn(make(chan amqp.Return, 1)))
	// One queue of our own for events and replies alike, named by the broker, so anew at each
	// connection: events by our destination; replies by its name, directly from this broker or
	// through the exchange where another one answers.
	own, err := c.channel.QueueDeclare("", false, true, true, false, nil)
	if err != nil {
		return err
	}
	c.own = own.Name
	if err = c.channel.QueueBind(c.own, *destination, *cluster+".events", false, nil); err != nil {
		return err
	}
	if err = c.channel.QueueBind(c.own, c.own, *cluster+".replies", false, nil); err != nil {
		return err
	}
	messages, err := c.channel.Consume(c.own, "", true, true, false, false, nil)
	if err != nil {
		return err
	}
	go c.listen(messages)
	return nil
}

func (c *client) listen(messages <-chan amqp.Delivery) {
	for message := range messages {
		var body struct{ Type, Outcome string }
		if json.Unmarshal(message.Body, &body) == nil && body.Type == "Reply" {
			fmt.Printf("reply %s\n", message.Body)
			c.replies <- reply{message.CorrelationId, body.Outcome}
		} else {
			fmt.Printf("event %s\n", message.Body)
		}
	}
}

// Sends one command and waits for its reply. True where it was done or accepted. The same id in
// every attempt makes sure that nothing is done twice.
func (c *client) send(command, to, body string) bool {
	id, end := unique(), time.Now().Add(*timeout)
	for attempt := int32(1); time.Now().Before(end); attempt++ {
		fmt.Printf("send  %s#%s attempt %d\n", command, to, attempt)
		if err := c.publish(command+"#"+to, id, body, attempt); err != nil {
			fmt.Println("not confirmed:", err)
		} else if outcome, answered := c.wait(id, end); answered {
			return outcome == "OK" || outcome == "ACCEPTED"
		}
		c.connection.Close()
		c.next++
		c.connect()
	}
	fmt.Printf("no reply to %s#%s\n", command, to)
	return false
}

func (c *client) publish(kind, id, body string, attempt int32) error {
	within, cancel := context.WithTimeout(context.Background(), confirmTime)
	defer cancel()
	message := amqp.Publishing{
		Type: kind, MessageId: id, CorrelationId: id, ReplyTo: c.own, Timestamp: time.Now(),
		DeliveryMode: amqp.Persistent, Headers: amqp.Table{"x-attempt": attempt}, Body: []byte(body),
	}
	confirm, err := c.channel.PublishWithDeferredConfirmWithContext(within, "", *queue, true, false, message)
	if err != nil {
		return err
	}
	done := make(chan bool, 1)
	go func() { done <- confirm.Wait() }()
	select {
	case taken := <-done:
		if !taken {
			return fmt.Errorf("the broker refuses it")
		}
		return nil
	case <-within.Done():
		return within.Err()
	}
}

// As long as the connection lasts the reply comes to this queue.
func (c *client) wait(id string, end time.Time) (string, bool) {
	late := time.After(time.Until(end))
	for {
		select {
		case got := <-c.replies:
			if got.id == id {
				return got.outcome, true
			}
		case <-c.lost:
			return "", false
		case <-late:
			return "", false
		}
	}
}

func main() {
	flag.Parse()
	if *password == "" {
		*password = "pw-" + *agent
	}
	c := &client{list: strings.Split(*brokers, ","), replies: make(chan reply, 64)}
	c.connect()
	done := true
	for _, step := range [][3]string{
		{"Hello", *destination, ""},
		{"Connect", *agent, *destination + "," + *password},
		{"Login", *agent, *password + "," + *extension},
		{"MakeReady", *agent, ""},
		{"MakeCall", *agent, *call},
	} {
		done = done && c.send(step[0], step[1], step[2])
		time.Sleep(*pause)
	}
	time.Sleep(time.Duration(*seconds) * time.Second)
	c.connection.Close()
	if !done {
		os.Exit(1)
	}
}
