/* SPDX-License-Identifier: Apache-2.0
 *
 * A pool's regions from C: list them, or print one's bytes. The headers are all it takes:
 *
 *     cc -O2 -Isrc/softcxl/pool/core examples/pool_region.c -o pool_region
 *     ./pool_region ARENA SOURCE...              lists the regions
 *     ./pool_region -r NAME ARENA SOURCE...      prints the bytes of one
 *
 * ARENA and SOURCE are the files of a pool's memory, in the order of their numbers. It reads without a slot of its own,
 * which is what takes no lock: whoever writes at the same time is not disturbed, and is never seen half done.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "softcxl_region.h"

static struct scxl_map maps[SCXL_SOURCES];

static int fail(const char *what, const char *why)
{
	fprintf(stderr, "%s: %s\n", what, why);
	return 1;
}

static const char *sentence(enum scxl_result result)
{
	switch (result) {
	case SCXL_FOREIGN: return "no pool is there, or one of another version";
	case SCXL_EMPTY: return "its server is still building it";
	case SCXL_STALE: return "it was freed meanwhile";
	case SCXL_UNMAPPED: return "it lies in memory that was not given";
	case SCXL_POISONED: return "every healthy copy has poison";
	case SCXL_FAILED: return "no copy is healthy";
	case SCXL_BUSY: return "a write is under way, or who wrote it died: that takes a slot and the lock";
	default: return "what is there cannot be";
	}
}

static bool map(struct scxl_map *to, const char *path)
{
	struct stat status;
	int file = open(path, O_RDWR);

	if (file < 0 || fstat(file, &status))
		return false;
	to->size = (uint64_t)status.st_size;
	to->base = mmap(NULL, to->size, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
	close(file);
	return to->base != MAP_FAILED;
}

/* Open the region of a record, as it is now; false: there is none. */
static bool region(struct scxl_opened *one, struct scxl_pool *pool, uint64_t index)
{
	uint64_t word = scxl_load(&pool->regions[index].word);
	return (word & 0xff) == SCXL_REGION_LIVE && scxl_region_open(one, pool, index, word >> 24) == SCXL_OK;
}

static void list(struct scxl_pool *pool)
{
	struct scxl_opened one;

	for (uint64_t index = 0; index < pool->region_count; index++)
		if (region(&one, pool, index))
			printf("%8llu  %12llu bytes  %d of %u copies  %.63s\n", (unsigned long long)index, (unsigned long long)one.size,
			       __builtin_popcount(scxl_bits(&one, &one.region->healthy)), one.copies,
			       one.region->name[0] ? (char *)one.region->name : "-");
}

static int print(struct scxl_pool *pool, const char *name)
{
	uint64_t step = 1 << 20;
	uint8_t *bytes = malloc(step);
	struct scxl_opened one;

	for (uint64_t index = 0; bytes && index < pool->region_count; index++) {
		if (!region(&one, pool, index) || strncmp((char *)one.region->name, name, sizeof one.region->name))
			continue;
		for (uint64_t at = 0; at < one.size; at += step) {
			uint64_t length = one.size - at < step ? one.size - at : step;
			enum scxl_result result = scxl_region_read(&one, at, bytes, length, 0);
			if (result != SCXL_OK)
				return fail(name, sentence(result));
			fwrite(bytes, 1, length, stdout);
		}
		free(bytes);
		return 0;
	}
	return fail(name, "there is no such region");
}

int main(int count, char **arguments)
{
	const char *name = count > 2 && !strcmp(arguments[1], "-r") ? arguments[2] : NULL;
	int first = name ? 3 : 1, files = count - first;
	enum scxl_result result;
	struct scxl_pool pool;
	scxl_u32 journalling = 0;

	if (files < 1 || files > SCXL_SOURCES) {
		fprintf(stderr, "usage: %s [-r REGION] ARENA [SOURCE]...\n", arguments[0]);
		return 2;
	}
	for (int i = 0; i < files; i++)
		if (!map(&maps[i], arguments[first + i]))
			return fail(arguments[first + i], strerror(errno));
	result = scxl_pool_attach(&pool, maps, (uint32_t)files, 0, 0, &journalling);
	if (result != SCXL_OK)
		return fail(arguments[first], sentence(result));
	if (name)
		return print(&pool, name);
	list(&pool);
	return 0;
}
