// Words of queries by HNSW and by comparing with all of them, for counting instructions: see words_arm64.py.
// usage: count FILE (exact|hnsw) QUERIES GRAPH; GRAPH is of hnswlib; FILE: int32 K, D, N, then float32 centroids (K, D) and queries (N, D).
#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <vector>

#include "hnswlib/hnswlib.h"

extern "C" void delf_edge_nearest(const float *, const float *, std::int64_t, std::int64_t, std::int64_t, std::int32_t *,
                                  float *);

int main(int argc, char **argv) {
    if (argc != 5) return 2;
    std::FILE *file = std::fopen(argv[1], "rb");
    std::int32_t head[3];
    if (!file || std::fread(head, 4, 3, file) != 3) return 2;
    const std::size_t K = head[0], D = head[1], N = head[2], n = std::strtoul(argv[3], nullptr, 10);
    std::vector<float> centroids(K * D), queries(N * D);
    if (std::fread(centroids.data(), 4, K * D, file) != K * D) return 2;
    if (std::fread(queries.data(), 4, N * D, file) != N * D) return 2;
    constexpr std::size_t P = 8;
    std::vector<std::int32_t> words(P * std::max<std::size_t>(n, 1));
    long long sum = 0;
    if (!std::strcmp(argv[2], "exact")) {
        std::vector<float> half(K), turned(K * D), row(K), similarity(P);
        for (std::size_t k = 0; k < K; ++k)
            for (std::size_t d = 0; d < D; ++d) {
                half[k] += 0.5f * centroids[k * D + d] * centroids[k * D + d];
                turned[d * K + k] = centroids[k * D + d];
            }
        for (std::size_t q = 0; q < n; ++q) {  // a product in blocks of words that stay in the nearest cache
            for (std::size_t start = 0; start < K; start += 16) {
                float block[16] = {};
                for (std::size_t d = 0; d < D; ++d) {
                    const float x = queries[q * D + d];
                    for (std::size_t k = 0; k < 16; ++k) block[k] += x * turned[d * K + start + k];
                }
                std::copy(block, block + 16, row.begin() + start);
            }
            delf_edge_nearest(row.data(), half.data(), 1, K, P, words.data() + q * P, similarity.data());
        }
    } else {
        hnswlib::L2Space space(D);
        hnswlib::HierarchicalNSW<float> graph(&space, argv[4]);
        graph.setEf(1);
        for (std::size_t q = 0; q < n; ++q) {
            auto found = graph.searchKnn(queries.data() + q * D, 32);
            while (found.size() > P) found.pop();
            for (std::size_t p = P; p--; found.pop()) words[q * P + p] = static_cast<std::int32_t>(found.top().second);
        }
    }
    for (std::size_t i = 0; i < n * P; ++i) sum += words[i];
    std::printf("%lld\n", sum);
    return 0;
}
