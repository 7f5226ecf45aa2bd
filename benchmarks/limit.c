/* SPDX-License-Identifier: Apache-2.0 */

/*
 * The limit: what the kernel itself takes for a plug and an unplug.
 *
 * The system calls of vif_plug_tapmac/kernel/making.py and converging.py, in
 * their order, with what they give to the kernel; but nothing is looked at that
 * comes back, except whether it is an error.
 *
 *     limit plug|replug|unplug|fill BRIDGE FIRST COUNT THREADS
 *
 * For COUNT ports from number FIRST on. Prints the nanoseconds of each, and
 * at the end of all together. "fill" is a plug into another link group, so
 * that all of it can be removed at once.
 */

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>
#include <net/if.h>
#include <net/if_arp.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <linux/if_link.h>
#include <linux/if_tun.h>
#include <linux/neighbour.h>
#include <linux/netlink.h>
#include <linux/rtnetlink.h>

#define GROUP 29793
#define FILL_GROUP 29799
#define ADDR_GEN_NONE 1

struct port {
	char name[IFNAMSIZ];
	char alias[128];
	unsigned char guest_mac[6];
};

/* A message to the kernel; its fixed part is of one of two types. */
struct request {
	struct nlmsghdr header;
	union {
		struct ifinfomsg link;
		struct ndmsg neighbour;
	};
	char attributes[512];
};

static const char *bridge_name;
static void (*work)(const struct port *);
static unsigned first, count;
static long long *each;
static atomic_uint next;

static void die(const char *what)
{
	perror(what);
	exit(1);
}

static long long now(void)
{
	struct timespec time;

	clock_gettime(CLOCK_MONOTONIC, &time);
	return time.tv_sec * 1000000000LL + time.tv_nsec;
}

static void start(struct request *request, int type, int flags, size_t fixed)
{
	memset(request, 0, sizeof(*request));
	request->header.nlmsg_len = NLMSG_LENGTH(fixed);
	request->header.nlmsg_type = type;
	request->header.nlmsg_flags = NLM_F_REQUEST | flags;
}

static struct rtattr *add(struct request *request, int type,
			  const void *value, size_t length)
{
	struct rtattr *attribute = (void *)((char *)request
			+ NLMSG_ALIGN(request->header.nlmsg_len));

	attribute->rta_type = type;
	attribute->rta_len = RTA_LENGTH(length);
	if (length)
		memcpy(RTA_DATA(attribute), value, length);
	request->header.nlmsg_len = NLMSG_ALIGN(request->header.nlmsg_len)
			+ RTA_ALIGN(attribute->rta_len);
	return attribute;
}

static void add_number(struct request *request, int type, unsigned value)
{
	add(request, type, &value, sizeof(value));
}

static void end(struct request *request, struct rtattr *nest)
{
	nest->rta_len = (char *)request + request->header.nlmsg_len
			- (char *)nest;
}

/* Return the index that the answer has; 0 if it says that there is none. */
static int ask(int netlink, struct request *request)
{
	char buffer[32768];
	struct nlmsghdr *answer = (void *)buffer;
	struct nlmsgerr *error = NLMSG_DATA(answer);

	if (send(netlink, request, request->header.nlmsg_len, 0) < 0)
		die("send");
	if (recv(netlink, buffer, sizeof(buffer), 0) < 0)
		die("recv");
	if (answer->nlmsg_type != NLMSG_ERROR)
		return ((struct ifinfomsg *)NLMSG_DATA(answer))->ifi_index;
	if (!error->error || error->error == -ENODEV
			|| error->error == -ENOENT)
		return 0;
	errno = -error->error;
	die("netlink");
	return 0;
}

static int find(int netlink, const char *name)
{
	struct request request;

	start(&request, RTM_GETLINK, 0, sizeof(request.link));
	add(&request, IFLA_IFNAME, name, strlen(name) + 1);
	add_number(&request, IFLA_EXT_MASK, RTEXT_FILTER_SKIP_STATS);
	return ask(netlink, &request);
}

static void get(int netlink, int index)
{
	struct request request;

	start(&request, RTM_GETLINK, 0, sizeof(request.link));
	request.link.ifi_index = index;
	add_number(&request, IFLA_EXT_MASK, RTEXT_FILTER_SKIP_STATS);
	if (!ask(netlink, &request))
		die("get");
}

static void look_up(int netlink, int bridge, const struct port *port,
		    unsigned char first_octet)
{
	struct request request;
	unsigned char mac[6];

	memcpy(mac, port->guest_mac, sizeof(mac));
	mac[0] = first_octet;
	start(&request, RTM_GETNEIGH, 0, sizeof(request.neighbour));
	request.neighbour.ndm_family = PF_BRIDGE;
	add(&request, NDA_LLADDR, mac, sizeof(mac));
	add_number(&request, NDA_MASTER, bridge);
	ask(netlink, &request);
}

static void set(int netlink, int index, int bridge, const struct port *port,
		int group)
{
	struct request request;
	struct rtattr *spec, *inet6;
	unsigned char mode = ADDR_GEN_NONE;

	start(&request, RTM_NEWLINK, NLM_F_ACK, sizeof(request.link));
	request.link.ifi_index = index;
	add_number(&request, IFLA_GROUP, group);
	add(&request, IFLA_IFALIAS, port->alias, strlen(port->alias) + 1);
	spec = add(&request, IFLA_AF_SPEC, NULL, 0);
	inet6 = add(&request, AF_INET6, NULL, 0);
	add(&request, IFLA_INET6_ADDR_GEN_MODE, &mode, sizeof(mode));
	end(&request, inet6);
	end(&request, spec);
	add(&request, IFLA_IFNAME, port->name, strlen(port->name) + 1);
	add_number(&request, IFLA_MASTER, bridge);
	ask(netlink, &request);
}

static void bring_up(int netlink, int index)
{
	struct request request;

	start(&request, RTM_NEWLINK, NLM_F_ACK, sizeof(request.link));
	request.link.ifi_index = index;
	request.link.ifi_flags = request.link.ifi_change = IFF_UP;
	ask(netlink, &request);
}

static int open_netlink(void)
{
	struct sockaddr_nl address = {.nl_family = AF_NETLINK};
	int netlink = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC,
			     NETLINK_ROUTE);

	if (netlink < 0 || bind(netlink, (void *)&address, sizeof(address)))
		die("netlink");
	return netlink;
}

/* Make a TAP, under another name first; return its descriptor. */
static int make(const struct port *port, char *name)
{
	struct ifreq request = {
		.ifr_flags = IFF_TAP | IFF_NO_PI | IFF_TUN_EXCL};
	int tun = open("/dev/net/tun", O_RDWR | O_CLOEXEC);

	snprintf(name, IFNAMSIZ, "limit-%s", port->name + 3);
	strcpy(request.ifr_name, name);
	if (tun < 0 || ioctl(tun, TUNSETIFF, &request)
			|| ioctl(tun, TUNSETOWNER, 0))
		die("TUNSETIFF");
	request.ifr_hwaddr.sa_family = ARPHRD_ETHER;
	memcpy(request.ifr_hwaddr.sa_data, port->guest_mac, 6);
	request.ifr_hwaddr.sa_data[0] = 0xfe;
	if (ioctl(tun, SIOCSIFHWADDR, &request))
		die("SIOCSIFHWADDR");
	return tun;
}

static void plug_into(const struct port *port, int group)
{
	int netlink = open_netlink(), tun, bridge, index;
	char name[IFNAMSIZ];

	if (find(netlink, port->name))
		die("it is there already");
	bridge = find(netlink, bridge_name);
	tun = make(port, name);
	index = find(netlink, name);
	look_up(netlink, bridge, port, 0xfa);
	look_up(netlink, bridge, port, 0xfe);
	look_up(netlink, bridge, port, 0xf6);
	set(netlink, index, bridge, port, group);
	bring_up(netlink, index);
	get(netlink, index);
	look_up(netlink, bridge, port, 0xfa);
	if ((int)if_nametoindex(bridge_name) != bridge)
		die("the bridge is another");
	if (ioctl(tun, TUNSETPERSIST, 1))
		die("TUNSETPERSIST");
	close(tun);
	close(netlink);
}

static void plug(const struct port *port)
{
	plug_into(port, GROUP);
}

static void fill(const struct port *port)
{
	plug_into(port, FILL_GROUP);
}

static void replug(const struct port *port)
{
	int netlink = open_netlink(), bridge;

	find(netlink, port->name);
	bridge = find(netlink, bridge_name);
	look_up(netlink, bridge, port, 0xfa);
	close(netlink);
}

static void unplug(const struct port *port)
{
	struct request request;
	int netlink = open_netlink();

	start(&request, RTM_DELLINK, NLM_F_ACK, sizeof(request.link));
	request.link.ifi_index = find(netlink, port->name);
	if (!request.link.ifi_index)
		die("it is not there");
	ask(netlink, &request);
	close(netlink);
}

static void *run(void *unused)
{
	unsigned done;

	(void)unused;
	while ((done = atomic_fetch_add(&next, 1)) < count) {
		unsigned number = first + done;
		struct port port = {.guest_mac = {
			0xfa, 0x16, 0x3e, number >> 16, number >> 8, number}};
		long long before;

		snprintf(port.name, sizeof(port.name), "tap%08x", number);
		snprintf(port.alias, sizeof(port.alias),
			 "tapmac:1:%08x-0000-4000-8000-000000000000:"
			 "fa:16:3e:%02x:%02x:%02x:%s:%lld", number,
			 port.guest_mac[3], port.guest_mac[4],
			 port.guest_mac[5], bridge_name,
			 (long long)time(NULL));
		before = now();
		work(&port);
		each[done] = now() - before;
	}
	return NULL;
}

int main(int argc, char **argv)
{
	static const struct {
		const char *name;
		void (*work)(const struct port *);
	} works[] = {{"plug", plug}, {"replug", replug}, {"unplug", unplug},
		     {"fill", fill}};
	pthread_t threads[64];
	int number_of_threads, i;
	long long before;
	unsigned done;

	if (argc != 6)
		return 2;
	for (i = 0; i < 4; i++)
		if (!strcmp(works[i].name, argv[1]))
			work = works[i].work;
	bridge_name = argv[2];
	first = atoi(argv[3]);
	count = atoi(argv[4]);
	number_of_threads = atoi(argv[5]);
	each = calloc(count, sizeof(*each));
	if (!work || !each || number_of_threads < 1 || number_of_threads > 64)
		return 2;
	before = now();
	for (i = 0; i < number_of_threads; i++)
		if (pthread_create(&threads[i], NULL, run, NULL))
			die("pthread_create");
	for (i = 0; i < number_of_threads; i++)
		pthread_join(threads[i], NULL);
	before = now() - before;
	for (done = 0; done < count; done++)
		printf("%lld\n", each[done]);
	printf("%lld\n", before);
	return 0;
}
