/* VK_LAYER_COHESIN_choose_device: a Vulkan layer that shows one physical device of all there are.
 *
 * WebGPU cannot tell identical GPUs apart. Before a rank opens its device, the process sets COHESIN_DEVICE to the place of
 * a device in the loader's list; the layer then shows that one alone and answers in COHESIN_DEVICE_OPENED with
 * "place:UUID". Without COHESIN_DEVICE it changes nothing. It intercepts vkCreateInstance, vkDestroyInstance and
 * vkEnumeratePhysicalDevices, and declares what it needs of the Vulkan and loader interfaces itself, so that a C compiler
 * is all it takes: cc -O2 -shared -fPIC -pthread -o libcohesin_choose_device.so choose-device.c
 */
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define EXPORT __attribute__((visibility("default")))
#define MAX_INSTANCES 256

enum { VK_SUCCESS = 0, VK_INCOMPLETE = 5, VK_OUT_OF_HOST_MEMORY = -1, VK_INITIALIZATION_FAILED = -3 };
enum { LOADER_INSTANCE_CREATE_INFO = 47, LAYER_LINK_INFO = 0 };
enum { PHYSICAL_DEVICE_PROPERTIES_2 = 1000059001, PHYSICAL_DEVICE_ID_PROPERTIES = 1000071004 };
enum { PROPERTIES_BYTES = 1024, ID_BYTES = 72, UUID_OFFSET = 16, UUID_BYTES = 16 };

typedef void *Instance;
typedef void *PhysicalDevice;
typedef void (*Function)(void);
typedef Function (*GetProcAddr)(Instance, const char *);
typedef int (*CreateInstance)(const void *, const void *, Instance *);
typedef void (*DestroyInstance)(Instance, const void *);
typedef int (*EnumeratePhysicalDevices)(Instance, uint32_t *, PhysicalDevice *);
typedef void (*GetProperties2)(PhysicalDevice, void *);

typedef struct { int32_t type; const void *next; } Structure;
typedef struct Link { struct Link *next; GetProcAddr get; void *getPhysicalDevice; } Link;
typedef struct { int32_t type; const void *next; int32_t function; Link *link; } LayerInstanceCreateInfo;
typedef struct { int32_t type; void *next; uint32_t version; void *get, *getDevice, *getPhysicalDevice; } NegotiateLayerInterface;

typedef struct {
  void *key;
  GetProcAddr get;
  EnumeratePhysicalDevices enumerate;
  GetProperties2 properties;
  DestroyInstance destroy;
} Layered;

static Layered instances[MAX_INSTANCES];
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

/* The loader keeps its dispatch table in the first word of an instance. */
static void *keyOf(Instance instance) { return *(void **)instance; }

static Layered find(void *key, int forget) {
  Layered found = {0};
  pthread_mutex_lock(&lock);
  for (int i = 0; i < MAX_INSTANCES; i++) {
    if (instances[i].key != key) continue;
    found = instances[i];
    if (forget) memset(&instances[i], 0, sizeof instances[i]);
    break;
  }
  pthread_mutex_unlock(&lock);
  return found;
}

static int layerCreateInstance(const void *info, const void *allocator, Instance *out) {
  LayerInstanceCreateInfo *chain = (LayerInstanceCreateInfo *)((const Structure *)info)->next;
  while (chain && !(chain->type == LOADER_INSTANCE_CREATE_INFO && chain->function == LAYER_LINK_INFO))
    chain = (LayerInstanceCreateInfo *)chain->next;
  if (!chain) return VK_INITIALIZATION_FAILED;
  GetProcAddr get = chain->link->get;
  chain->link = chain->link->next;
  int result = ((CreateInstance)get(NULL, "vkCreateInstance"))(info, allocator, out);
  if (result != VK_SUCCESS) return result;
  Layered made = {keyOf(*out), get, (EnumeratePhysicalDevices)get(*out, "vkEnumeratePhysicalDevices"),
                  (GetProperties2)get(*out, "vkGetPhysicalDeviceProperties2"),
                  (DestroyInstance)get(*out, "vkDestroyInstance")};
  pthread_mutex_lock(&lock);
  int place = 0;
  while (place < MAX_INSTANCES && instances[place].key) place++;
  if (place < MAX_INSTANCES) instances[place] = made;
  pthread_mutex_unlock(&lock);
  if (place < MAX_INSTANCES) return VK_SUCCESS;
  made.destroy(*out, allocator);
  return VK_INITIALIZATION_FAILED;
}

static void layerDestroyInstance(Instance instance, const void *allocator) {
  Layered found = find(keyOf(instance), 1);
  if (found.destroy) found.destroy(instance, allocator);
}

/* Tells the process which device it was given, by what the driver says of it. */
static void report(const Layered *layered, PhysicalDevice device, long place) {
  _Alignas(8) unsigned char id[ID_BYTES] = {0}, properties[PROPERTIES_BYTES] = {0};
  *(int32_t *)id = PHYSICAL_DEVICE_ID_PROPERTIES;
  *(int32_t *)properties = PHYSICAL_DEVICE_PROPERTIES_2;
  *(void **)(properties + 8) = id;
  if (layered->properties) layered->properties(device, properties);
  char text[64];
  int length = snprintf(text, sizeof text, "%ld:", place);
  for (int i = 0; i < UUID_BYTES; i++)
    length += snprintf(text + length, sizeof text - length, "%02x", id[UUID_OFFSET + i]);
  setenv("COHESIN_DEVICE_OPENED", text, 1);
}

static int layerEnumerate(Instance instance, uint32_t *count, PhysicalDevice *devices) {
  Layered layered = find(keyOf(instance), 0);
  const char *wanted = getenv("COHESIN_DEVICE");
  if (!wanted || !*wanted) return layered.enumerate(instance, count, devices);
  char *end;
  long place = strtol(wanted, &end, 10);
  uint32_t all = 0;
  int result = layered.enumerate(instance, &all, NULL);
  if (result != VK_SUCCESS) return result;
  if (*end || place < 0 || place >= (long)all) {
    *count = 0;
    return VK_SUCCESS;
  }
  if (!devices) {
    *count = 1;
    return VK_SUCCESS;
  }
  if (*count == 0) return VK_INCOMPLETE;
  PhysicalDevice *list = calloc(all, sizeof *list);
  if (!list) return VK_OUT_OF_HOST_MEMORY;
  result = layered.enumerate(instance, &all, list);
  devices[0] = list[place];
  free(list);
  if (result != VK_SUCCESS) return result;
  *count = 1;
  report(&layered, devices[0], place);
  return VK_SUCCESS;
}

static Function layerGet(Instance instance, const char *name) {
  if (!strcmp(name, "vkGetInstanceProcAddr")) return (Function)layerGet;
  if (!strcmp(name, "vkCreateInstance")) return (Function)layerCreateInstance;
  if (!strcmp(name, "vkDestroyInstance")) return (Function)layerDestroyInstance;
  if (!strcmp(name, "vkEnumeratePhysicalDevices")) return (Function)layerEnumerate;
  if (!instance) return NULL;
  Layered layered = find(keyOf(instance), 0);
  return layered.get ? layered.get(instance, name) : NULL;
}

EXPORT int vkNegotiateLoaderLayerInterfaceVersion(NegotiateLayerInterface *interface) {
  if (interface->version < 2) return VK_INITIALIZATION_FAILED;
  interface->version = 2;
  interface->get = (void *)layerGet;
  interface->getDevice = NULL;
  interface->getPhysicalDevice = NULL;
  return VK_SUCCESS;
}
